/*
 * A QEMU plugin that counts the hypervisor's instructions by address, and all others together.
 *
 *   -plugin FILE.so,out=PATH
 *
 * When the emulator ends, PATH gets a line "guests COUNT", and a line "ADDRESS COUNT" (hexadecimal,
 * decimal) for each block of the hypervisor's code. Each emulated CPU runs in a thread of its own and
 * has its own counters, so no increment is lost. Blocks in the highest 2 GiB count as the
 * hypervisor's: the guests must be test kernels, which run at low addresses.
 *
 * The declarations are those of QEMU's plugin interface, version 1 (qemu-plugin.h), which Debian does not install.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef uint64_t qemu_plugin_id_t;
struct qemu_plugin_tb;
struct qemu_plugin_insn;
typedef struct qemu_info_t qemu_info_t;
enum qemu_plugin_cb_flags { QEMU_PLUGIN_CB_NO_REGS };
void qemu_plugin_register_vcpu_tb_trans_cb(qemu_plugin_id_t, void (*)(qemu_plugin_id_t, struct qemu_plugin_tb *));
void qemu_plugin_register_vcpu_tb_exec_cb(struct qemu_plugin_tb *, void (*)(unsigned, void *),
                                          enum qemu_plugin_cb_flags, void *);
void qemu_plugin_register_atexit_cb(qemu_plugin_id_t, void (*)(qemu_plugin_id_t, void *), void *);
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *);
uint64_t qemu_plugin_tb_vaddr(const struct qemu_plugin_tb *);

#define EXPORT __attribute__((visibility("default")))
EXPORT int qemu_plugin_version = 1;

enum { CPUS = 16, SLOTS = 1 << 16 };
static const uint64_t HYPERVISOR = 0xffffffff80000000u;

/* A translated block: its address, its number of instructions, how often each CPU has begun it. */
struct block {
    uint64_t address;
    uint64_t length;
    uint64_t begun[CPUS];
};

/* Open addressing by address and length. QEMU serialises translation by a lock of its own. */
static struct block *blocks[SLOTS];
static uint64_t guests[CPUS][8]; /* a cache line each */
static const char *path = "instructions.txt";

static void begun(unsigned cpu, void *block)
{
    ((struct block *)block)->begun[cpu % CPUS]++;
}

static void begun_by_guest(unsigned cpu, void *length)
{
    guests[cpu % CPUS][0] += (uintptr_t)length;
}

static struct block *find(uint64_t address, uint64_t length)
{
    uint32_t slot = (uint32_t)((address * 0x9e3779b97f4a7c15u + length * 0x85ebca6bu) >> 48);
    for (unsigned tries = 0; tries < SLOTS; tries++, slot++) {
        struct block **place = &blocks[slot % SLOTS];
        if (!*place) {
            *place = calloc(1, sizeof **place);
            if (!*place)
                break;
            (*place)->address = address;
            (*place)->length = length;
        }
        if ((*place)->address == address && (*place)->length == length)
            return *place;
    }
    fprintf(stderr, "count: no room for a block: the figures would be wrong\n");
    abort();
}

static void translated(qemu_plugin_id_t id, struct qemu_plugin_tb *tb)
{
    uint64_t address = qemu_plugin_tb_vaddr(tb);
    size_t length = qemu_plugin_tb_n_insns(tb);
    (void)id;
    if (address < HYPERVISOR)
        qemu_plugin_register_vcpu_tb_exec_cb(tb, begun_by_guest, QEMU_PLUGIN_CB_NO_REGS, (void *)length);
    else
        qemu_plugin_register_vcpu_tb_exec_cb(tb, begun, QEMU_PLUGIN_CB_NO_REGS, find(address, length));
}

static void at_end(qemu_plugin_id_t id, void *unused)
{
    FILE *out = fopen(path, "w");
    uint64_t sum = 0;
    (void)id;
    (void)unused;
    if (!out) {
        perror(path);
        return;
    }
    for (int cpu = 0; cpu < CPUS; cpu++)
        sum += guests[cpu][0];
    fprintf(out, "guests %llu\n", (unsigned long long)sum);
    for (int slot = 0; slot < SLOTS; slot++) {
        const struct block *block = blocks[slot];
        if (!block)
            continue;
        sum = 0;
        for (int cpu = 0; cpu < CPUS; cpu++)
            sum += block->begun[cpu];
        fprintf(out, "%llx %llu\n", (unsigned long long)block->address, (unsigned long long)(sum * block->length));
    }
    fprintf(out, "end\n");
    fclose(out);
}

EXPORT int qemu_plugin_install(qemu_plugin_id_t id, const qemu_info_t *info, int argc, char **argv)
{
    (void)info;
    for (int n = 0; n < argc; n++)
        if (!strncmp(argv[n], "out=", 4))
            path = strdup(argv[n] + 4);
    qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
    qemu_plugin_register_atexit_cb(id, at_end, NULL);
    return 0;
}
