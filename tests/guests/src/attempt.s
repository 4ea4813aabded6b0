# Runs code that may do anything with any registers, and comes back whatever happens: `attempt_recover` is where the trap
# handler sends it, on any stack.

.section .text.attempt, "ax"
.code64
.global attempt_run
attempt_run:                            # (registers: rax rbx rcx rdx rbp rsi rdi r8 .. r15, code)
    push %rbx
    push %rbp
    push %r12
    push %r13
    push %r14
    push %r15
    mov %rsp, attempt_stack(%rip)
    mov %rsi, attempt_target(%rip)
    mov 0(%rdi), %rax
    mov 8(%rdi), %rbx
    mov 16(%rdi), %rcx
    mov 24(%rdi), %rdx
    mov 32(%rdi), %rbp
    mov 40(%rdi), %rsi
    mov 56(%rdi), %r8
    mov 64(%rdi), %r9
    mov 72(%rdi), %r10
    mov 80(%rdi), %r11
    mov 88(%rdi), %r12
    mov 96(%rdi), %r13
    mov 104(%rdi), %r14
    mov 112(%rdi), %r15
    mov 48(%rdi), %rdi
    sti
    jmp *attempt_target(%rip)

.global attempt_recover
attempt_recover:
    mov attempt_stack(%rip), %rsp
    pop %r15
    pop %r14
    pop %r13
    pop %r12
    pop %rbp
    pop %rbx
    cld
    ret

.section .bss.attempt, "aw", @nobits
.balign 8
attempt_stack:  .skip 8
attempt_target: .skip 8
