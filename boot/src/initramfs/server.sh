#!/bin/busybox sh
# The first process of a Linux server. On the kernel's command line:
#   server.requests=N  requests of each kind in a pass
#   worker.*           see the worker
# A pass sends requests through a Unix socket and through TCP, makes the server fork and write its
# data, and finally checks the server's number of increments.
/bin/busybox --install -s /bin
export PATH=/bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
for module in /lib/modules/*; do
    [ -e "$module" ] && insmod "$module"
done
requests=1000
for word in $(cat /proc/cmdline); do
    case $word in
    server.requests=*) requests=${word#*=} ;;
    esac
done
ip link set lo up
redis-server --dir /tmp --unixsocket /tmp/redis --save '' --daemonize yes --maxmemory 32mb \
    --maxmemory-policy noeviction > /dev/null
until [ "$(redis-cli -s /tmp/redis ping)" = PONG ]; do
    usleep 10000
done
echo "server: Linux $(uname -r) serves, $requests requests of each kind in a pass"
worker &

pass=0
while true; do
    pass=$((pass + 1))
    redis-cli -s /tmp/redis flushall > /dev/null
    redis-benchmark -s /tmp/redis -q -n "$requests" -c 8 -r 4000 -d 1000 -t set,get,lpush,lpop,sadd > /tmp/load 2>&1 ||
        echo "server: wrong: the load ended with $?: $(tail -n 1 /tmp/load)"
    redis-cli -s /tmp/redis bgsave > /dev/null
    redis-benchmark -q -n "$requests" -c 8 -P 4 -t set,mset > /tmp/load 2>&1 ||
        echo "server: wrong: the load by TCP ended with $?: $(tail -n 1 /tmp/load)"
    redis-benchmark -q -n "$requests" -c 8 -t incr > /tmp/load 2>&1
    counted=$(redis-cli -s /tmp/redis get counter:__rand_int__)
    [ "$counted" = "$requests" ] || echo "server: wrong: $counted increments of $requests"
    saved=$(redis-cli -s /tmp/redis info persistence | grep -c 'rdb_last_bgsave_status:ok')
    [ "$saved" = 1 ] || echo "server: wrong: the data were not written"
    echo "server: pass $pass uptime $(cut -d ' ' -f 1 /proc/uptime) interrupts $(grep LOC: /proc/interrupts | tr -s ' ' | cut -d ' ' -f 2)"
done
