#!/bin/busybox sh
# The first process of a Linux that leaves in another way in each incarnation. On the command line:
#   ways=NAME,NAME,...      the ways of the first, second, ... incarnation
#   tidepool.incarnation=N  number of this incarnation; the hypervisor appends it
#   ways.kexec[-panic]      another kernel started this one by kexec; it reboots or panics
/bin/busybox --install -s /bin
export PATH=/bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mount -t pstore pstore /sys/fs/pstore
for word in $(cat /proc/cmdline); do
    [ "$word" = modules=no ] && rm -r /lib/modules
done
for module in /lib/modules/*; do
    [ -e "$module" ] && insmod "$module"
done
echo 1 > /proc/sys/kernel/sysrq
if [ -e /proc/vmcore ]; then
    echo "leave: a crash kernel runs, memory of the other: $(stat -c %s /proc/vmcore)"
    reboot -f
fi
incarnation=1
for word in $(cat /proc/cmdline); do
    case $word in
    tidepool.incarnation=*) incarnation=${word#*=} ;;
    ways=*) ways=${word#*=} ;;
    ways.kexec) echo "leave: after kexec"; reboot -f ;;
    ways.kexec-panic) echo "leave: after kexec"; echo c > /proc/sysrq-trigger ;;
    esac
done
for record in /sys/fs/pstore/*; do
    [ -e "$record" ] && echo "leave: record $(head -n 1 "$record")" && rm "$record"
done
way=$(echo "$ways" | cut -d , -f "$incarnation")
echo "leave: Linux $(uname -r) incarnation $incarnation way $way"

# Fills the kernel's log, so that it needs several records.
chatter() {
    line=$(seq -s ' ' 1 200 | cut -c 1-800)
    for n in $(seq 1 60); do
        echo "$n $line" > /dev/kmsg
    done
}
case $way in
reboot) reboot -f ;;
type-*)
    # The same types as reboot= on the command line; the file exists from Linux 5.11 on.
    echo "${way#type-}" > /sys/kernel/reboot/type
    reboot -f
    ;;
halt) halt -f ;;
poweroff) poweroff -f ;;
sysrq-*) echo "${way#sysrq-}" > /proc/sysrq-trigger ;;
panic*)
    chatter
    echo "${way#panic}" > /proc/sys/kernel/panic
    echo c > /proc/sysrq-trigger
    ;;
kexec*)
    kexec -s -l /vmlinuz --initrd=/second.cpio --command-line="$(cat /proc/cmdline) ways.$way"
    kexec -e
    ;;
crash-kernel*)
    kexec -s -p /vmlinuz --initrd=/second.cpio --command-line="$(cat /proc/cmdline) nr_cpus=1 ${way#crash-kernel}"
    echo "leave: crash kernel loaded: $(cat /sys/kernel/kexec_crash_loaded)"
    echo c > /proc/sysrq-trigger
    ;;
suspend-*)
    # The first path is that of Linux 6.6 and later.
    for port in /sys/class/tty/ttyS0/device /sys/class/tty/ttyS0; do
        [ -e $port/power/wakeup ] && echo enabled > $port/power/wakeup
    done
    echo "leave: sleeps"
    echo "${way#suspend-}" > /sys/power/state
    echo "leave: woke from ${way#suspend-}, status $?"
    reboot -f
    ;;
read)
    echo "leave: reads"
    read -r line
    echo "leave: has read"
    reboot -f
    ;;
idle) while true; do sleep 1000; done ;;
esac
sleep 60
echo "leave: still here"
