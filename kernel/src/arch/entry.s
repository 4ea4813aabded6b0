# Interrupt and exception entries: each vector's 16 bytes push what makes the frames alike, the common part
# saves the registers and calls `interrupt_dispatch(&mut Frame)`. `frame.rs` has the layout.
#
# Alignment: the CPU aligns RSP to 16 before it pushes five words; with error code, vector and 15 registers
# that is 22 words, a multiple of 16 bytes, at the call.

.section .text.interrupts, "ax"
.code64

# Exceptions that push an error code: 8, 10 to 14, 17, 21, 29, 30 (SDM 3A "Exception and Interrupt Vectors";
# APM 2 "Exception Vectors" for the last two).
.set WITH_ERROR_CODE, 0x60227d00

.balign 16
.global interrupt_entries
interrupt_entries:
.set vector, 0
.rept 256
    .balign 16
    .if vector >= 32
    pushq $0
    .else
    .if ((WITH_ERROR_CODE >> vector) & 1) == 0
    pushq $0
    .endif
    .endif
    pushq $vector
    jmp interrupt_common
    .set vector, vector + 1
.endr

interrupt_common:
    cld
    push %rax
    push %rbx
    push %rcx
    push %rdx
    push %rsi
    push %rdi
    push %rbp
    push %r8
    push %r9
    push %r10
    push %r11
    push %r12
    push %r13
    push %r14
    push %r15
    mov %rsp, %rdi
    call interrupt_dispatch
    pop %r15
    pop %r14
    pop %r13
    pop %r12
    pop %r11
    pop %r10
    pop %r9
    pop %r8
    pop %rbp
    pop %rdi
    pop %rsi
    pop %rdx
    pop %rcx
    pop %rbx
    pop %rax
    add $16, %rsp
    iretq
