# Copies files from and to the exchange disk. Direct I/O bypasses the page cache, which would miss
# the other side's writes.
# Positions are in MiB.

# take POSITION BYTES FILE
take() {
    dd if=/dev/sda of="$3" bs=1M skip="$1" count=$((($2 + 1048575) / 1048576)) iflag=direct 2> /dev/null
    truncate -s "$2" "$3"
}

# give FILE POSITION: a file of whole pages
give() {
    dd if="$1" of=/dev/sda bs=1M seek="$2" oflag=direct 2> /dev/null
}
