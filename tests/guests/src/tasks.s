# From long mode to 32-bit protected mode without paging, and there a switch to a second task, which resets the machine.
# %edi: what asks for the switch, from 0 on: far JMP, far CALL, IRET with NT, task gate in the IDT, far JMP to a task gate.

.section .text
.global switch_tasks
switch_tasks:
    cli
    lgdt task_gdt_pointer
    pushq $8
    lea protected(%rip), %rax
    push %rax
    lretq

.code32
protected:
    mov $16, %eax
    mov %eax, %ds
    mov %eax, %es
    mov %eax, %ss
    mov $task_stack_end, %esp
    mov %cr0, %eax
    and $0x7fffffff, %eax               # PG
    mov %eax, %cr0
    mov $0xc0000080, %ecx               # EFER
    rdmsr
    and $0xfffffeff, %eax               # LME
    wrmsr
    mov $first_task, %eax               # the bases of both descriptors
    mov %ax, task_gdt + 24 + 2
    shr $16, %eax
    mov %al, task_gdt + 24 + 4
    mov $second_task, %eax
    mov %ax, task_gdt + 32 + 2
    shr $16, %eax
    mov %al, task_gdt + 32 + 4
    mov $24, %eax
    ltr %ax
    cmp $1, %edi
    jb by_jump
    je by_call
    cmp $3, %edi
    jb by_iret
    je by_gate
    ljmp $40, $0
by_jump:
    ljmp $32, $0
by_call:
    lcall $32, $0
by_iret:
    movb $0x8b, task_gdt + 32 + 5       # the task to go back to is busy
    movw $32, first_task                # its selector
    pushfl
    orl $0x4000, (%esp)                 # NT
    popfl
    iret
by_gate:
    lidt task_idt_pointer
    int $1

second_task_entry:
    mov $0x602, %dx                     # the FADT's reset register
    mov $1, %al
    out %al, %dx
1:  jmp 1b
.code64

.section .data.tasks, "aw"
.balign 8
task_gdt:
    .quad 0
    .quad 0x00cf9b000000ffff            # code, 32-bit
    .quad 0x00cf93000000ffff            # data
    .quad 0x0000890000000067            # the first task's TSS, available
    .quad 0x0000890000000067            # the second task's
    .quad 0x0000850000200000            # a task gate to it
task_gdt_pointer:
    .short 47
    .quad task_gdt
.balign 8
task_idt:
    .quad 0
    .quad 0x0000850000200000            # a task gate to the second task
task_idt_pointer:
    .short 15
    .long task_idt
.balign 8
first_task:
    .fill 26, 4, 0
second_task:
    .long 0, 0, 0, 0, 0, 0, 0, 0        # link, stacks of other rings, CR3
    .long second_task_entry, 2          # EIP, EFLAGS
    .long 0, 0, 0, 0, task_stack_end, 0, 0, 0
    .long 16, 8, 16, 16, 16, 16         # ES, CS, SS, DS, FS, GS
    .long 0, 104 << 16                  # LDT, no I/O map

.section .bss.tasks, "aw", @nobits
.balign 16
task_stack:     .skip 256
task_stack_end:
