#!/bin/busybox sh
# The first process of the demonstration's Debian. Options on the kernel's command line:
#   tidepool.shell          a shell instead of the worker
#   tidepool.clone          lines from the console, for a base and its children: key=, check and
#                           bait go to the program, mark and log concern the kernel's log, and the
#                           shell runs all others
#   tidepool.incarnation=N  number of this boot; the hypervisor appends it
#   worker.crash_after=N    a real panic in the first incarnation, after N passes
#   worker.*                see the worker
# It switches the machine off at a press of the power button.
/bin/busybox --install -s /bin
export PATH=/bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
for module in /lib/*.ko; do
    [ -e "$module" ] && insmod "$module"
done
echo 1 > /proc/sys/kernel/sysrq
# The button is the only input device; an event has 24 bytes.
if [ -e /dev/input/event0 ]; then
    (head -c 24 /dev/input/event0 > /dev/null && echo "init: power button" && poweroff -f) &
fi
incarnation=1
mode=worker
for word in $(cat /proc/cmdline); do
    case $word in
    tidepool.incarnation=*) incarnation=${word#*=} ;;
    tidepool.shell) mode=shell ;;
    tidepool.clone) mode=clone ;;
    esac
done
echo "init: Linux $(uname -r) is up, incarnation $incarnation"
if [ $mode = shell ]; then
    while true; do
        setsid cttyhack sh -l
    done
fi
if [ $mode = clone ]; then
    mkfifo /dev/child
    worker child < /dev/child &
    exec 3> /dev/child
    while read -r line; do
        case $line in
        key=* | check | bait) echo "$line" >&3 ;;
        mark)
            seen=$(dmesg | wc -l)
            echo "init: marked"
            ;;
        log)
            dmesg | tail -n +$((seen + 1)) | sed 's/^/init: new in the log: /'
            echo "init: end of the log"
            ;;
        *)
            sh -c "$line"
            echo "init: status $? of $line"
            ;;
        esac
    done
fi
# The worker stops for good before it requests the crash, so that no page is half written in the
# dump. It stays alive, so that its memory is in the dump.
worker | while read -r line; do
    echo "$line"
    if [ "$line" = "worker: crash now" ]; then
        echo c > /proc/sysrq-trigger
    fi
done
poweroff -f
