#!/bin/busybox sh
# The first process of the Linux that bed C runs within Bochs. It takes orders from its first serial line:
#
#   run ID BYTES LINES    run a shell script of BYTES bytes from the start of the exchange disk
#   stop ID SIGNAL        send SIGNAL to all processes of that script
#
# and answers "@start ID", "@say ID TEXT" for each line of output, "@exit ID STATUS". LINES are the
# numbers of further serial lines that the script's processes use. When these processes have ended,
# each line gets the byte 1e, the ID and a line end.
/bin/busybox --install -s /bin
export PATH=/bin:/usr/bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mount -t tmpfs -o size=90% tmp /tmp
mkdir -p /cd
for module in /lib/modules/*.ko; do
    insmod "$module"
done
# Large files stay on the medium: in an initramfs they would be unpacked before the first process.
mount -t iso9660 -o ro /dev/sr0 /cd
ln -s /cd/usr /usr
ln -s /cd/lib64 /lib64
ln -s /cd/lib/x86_64-linux-gnu /lib/x86_64-linux-gnu
stty -F /dev/ttyS0 -echo
for line in 1 2 3; do
    # -echo: input that no process reads must not come back.
    # clocal: an open must not wait for a carrier.
    stty -F /dev/ttyS$line 115200 raw -echo clocal
done
[ -e /dev/kvm ] && [ -e /dev/sda ] && . /exchange.sh && echo "@ready"

job() {
    take 0 "$2" "/tmp/$1.job"
    echo "@start $1"
    setsid sh "/tmp/$1.job" > "/tmp/$1.said" 2>&1 < /dev/null &
    echo $! > "/tmp/$1.pid"
    wait $!
    status=$?
    for line in $3; do
        printf '\036%s\n' "$1" > "/dev/ttyS$line"
    done
    sed "s/^/@say $1 /" "/tmp/$1.said"
    rm -f "/tmp/$1".*
    echo "@exit $1 $status"
}

while read -r verb id rest; do
    case $verb in
    run) job "$id" "${rest%% *}" "${rest#* }" & ;;
    stop) kill "-$rest" -- "-$(cat "/tmp/$id.pid")" ;;
    esac
done
