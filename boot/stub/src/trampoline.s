# A further CPU's way from real mode to Rust: copied to TRAMPOLINE (see `trampoline.rs`), started by a
# start-up IPI. One CPU goes through at a time: the block at the end belongs to the one being started.
#
# Long mode is entered straight from real mode; SDM 3A "Initializing IA-32e Mode" asks for PAE,
# CR3 and LME before PG, not for a stay in protected mode.

.section .rodata.trampoline, "a"
.set TRAMPOLINE, 0x8000
.code16
.balign 16
.global trampoline_start
trampoline_start:
    cli
    cld
    xor %ax, %ax
    mov %ax, %ds
    lgdtl TRAMPOLINE + (trampoline_gdt_pointer - trampoline_start)
    mov $0x620, %eax                    # PAE, OSFXSR, OSXMMEXCPT
    mov %eax, %cr4
    mov TRAMPOLINE + (trampoline_block - trampoline_start), %eax
    mov %eax, %cr3
    mov $0xc0000080, %ecx               # EFER
    rdmsr
    or $0x900, %eax                     # LME, NXE
    wrmsr
    mov $0x80010033, %eax               # PG, WP, NE, ET, MP, PE; caches on
    mov %eax, %cr0
    ljmpl $8, $(TRAMPOLINE + (trampoline_long - trampoline_start))

.code64
trampoline_long:
    mov $16, %eax
    mov %eax, %ds
    mov %eax, %es
    mov %eax, %ss
    xor %eax, %eax
    mov %eax, %fs
    mov %eax, %gs
    mov $(TRAMPOLINE + (trampoline_block - trampoline_start)), %ebx
    mov 8(%rbx), %rax                   # final tables
    mov 16(%rbx), %rsp
    mov 24(%rbx), %rsi                  # entry
    mov 32(%rbx), %rdi                  # its argument
    movabs $trampoline_high, %rdx
    jmp *%rdx

.balign 8
trampoline_gdt:
    .quad 0, 0x00af9b000000ffff, 0x00cf93000000ffff
trampoline_gdt_pointer:
    .short 23
    .long TRAMPOLINE + (trampoline_gdt - trampoline_start)
.balign 8
.global trampoline_block
trampoline_block:
    .skip 40
.global trampoline_end
trampoline_end:

# In the kernel's own mapping, where both sets of tables agree.
.section .text.trampoline, "ax"
.code64
trampoline_high:
    mov %rax, %cr3
    xor %ebp, %ebp
    call *%rsi
    ud2
