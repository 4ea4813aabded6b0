# From long mode to real mode, and there a far jump. %edi: address below 64 KiB of a copy of the last step.

.section .text
.global leave_for_real_mode
leave_for_real_mode:
    cli
    lgdt real_mode_gdt_pointer
    pushq $8
    lea compatibility(%rip), %rax
    push %rax
    lretq

.code32
compatibility:
    mov $16, %eax
    mov %eax, %ds
    mov %eax, %es
    mov %eax, %ss
    mov %cr0, %eax
    and $0x7fffffff, %eax               # PG
    mov %eax, %cr0
    mov $0xc0000080, %ecx               # EFER
    rdmsr
    and $0xfffffeff, %eax               # LME
    wrmsr
    mov $32, %eax
    mov %eax, %ds
    mov %eax, %es
    mov %eax, %ss
    push $24
    push %edi
    lret

# The last step runs in a copy below 64 KiB; the far pointer in it is filled in there.
.code16
.global real_mode_step
.global real_mode_step_end
real_mode_step:
    mov %cr0, %eax
    and $0xfffffffe, %eax               # PE
    mov %eax, %cr0
    .byte 0xea                          # far jump, offset, segment
    .short 0, 0
real_mode_step_end:
.code64

.section .rodata.boot, "a"
.balign 8
real_mode_gdt:
    .quad 0
    .quad 0x00cf9b000000ffff            # code, 32-bit
    .quad 0x00cf93000000ffff            # data
    .quad 0x00009b000000ffff            # code, 16-bit
    .quad 0x000093000000ffff            # data, as real mode wants it
real_mode_gdt_pointer:
    .short 39
    .quad real_mode_gdt
