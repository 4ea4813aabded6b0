# One stub for each of the first 64 vectors; all meet in `trap_common`, which hands a `Frame` to Rust and returns.
#
#   stack, downward: ss rsp rflags cs rip | error code | vector | rax .. r15   <- Frame

.macro stub vector
    .balign 16
    .if \vector == 8 || (\vector >= 10 && \vector <= 14) || \vector == 17 || \vector == 21 || \vector == 29 || \vector == 30
    .else
    push $0                             # the CPU pushes no error code
    .endif
    push $\vector
    jmp trap_common
.endm

.section .text.trap, "ax"
.code64
.balign 16
.global trap_stubs
trap_stubs:
.altmacro
.set vector, 0
.rept 64
    stub %vector
    .set vector, vector + 1
.endr
.noaltmacro

trap_common:
    push %r15
    push %r14
    push %r13
    push %r12
    push %r11
    push %r10
    push %r9
    push %r8
    push %rdi
    push %rsi
    push %rbp
    push %rdx
    push %rcx
    push %rbx
    push %rax
    cld
    mov %rsp, %rdi
    mov %rsp, %rbx                      # kept by the callee
    and $-16, %rsp
    call trap
    mov %rbx, %rsp
    pop %rax
    pop %rbx
    pop %rcx
    pop %rdx
    pop %rbp
    pop %rsi
    pop %rdi
    pop %r8
    pop %r9
    pop %r10
    pop %r11
    pop %r12
    pop %r13
    pop %r14
    pop %r15
    add $16, %rsp
    iretq
