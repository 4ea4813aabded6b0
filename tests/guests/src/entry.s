# From PVH's 32-bit entry to `start(information)` in long mode: the first 4 GiB are mapped at themselves by 2 MiB pages, the rest of
# the first 512 GiB by pages of 1 GiB, which a CPU without these must not touch.

.section .note.pvh, "a", @note
.balign 4
    .long 4, 8, 18                      # name size, descriptor size, XEN_ELFNOTE_PHYS32_ENTRY
    .asciz "Xen"
    .quad pvh_entry

.section .entry, "ax"
.code32
.global pvh_entry
pvh_entry:
    cli
    cld
    mov %ebx, %edi                      # physical address of the start information, Rust's first argument

    mov $boot_pd, %ebx
    mov $0x83, %eax                     # present, writable, large
    mov $2048, %ecx
1:  mov %eax, (%ebx)
    movl $0, 4(%ebx)
    add $0x200000, %eax
    add $8, %ebx
    loop 1b
    mov $boot_pd + 3, %eax
    mov $boot_pdpt, %ebx
    mov $4, %ecx
2:  mov %eax, (%ebx)
    add $4096, %eax
    add $8, %ebx
    loop 2b
    mov $4, %ecx                        # GiB number n is at n << 30: the low word and the rest of the address
3:  mov %ecx, %eax
    shl $30, %eax
    or $0x83, %eax                      # present, writable, large
    mov %eax, (%ebx)
    mov %ecx, %eax
    shr $2, %eax
    mov %eax, 4(%ebx)
    add $8, %ebx
    inc %ecx
    cmp $512, %ecx
    jb 3b
    movl $boot_pdpt + 3, boot_pml4

    mov $boot_pml4, %eax
    mov %eax, %cr3
    mov %cr4, %eax
    or $0x20, %eax                      # PAE
    mov %eax, %cr4
    mov $0xc0000080, %ecx               # EFER
    rdmsr
    or $0x100, %eax                     # LME
    wrmsr
    mov %cr0, %eax
    or $0x80010000, %eax                # PG, WP
    mov %eax, %cr0
    lgdt boot_gdt_pointer
    ljmp $8, $long64

.code64
long64:
    mov $16, %eax
    mov %eax, %ds
    mov %eax, %es
    mov %eax, %ss
    xor %eax, %eax
    mov %eax, %fs
    mov %eax, %gs
    mov $boot_stack_end, %rsp
    xor %ebp, %ebp
    mov %edi, %edi
    call start
    ud2

.section .rodata.boot, "a"
.balign 8
boot_gdt:
    .quad 0
    .quad 0x00af9b000000ffff            # code, 64-bit
    .quad 0x00cf93000000ffff            # data
boot_gdt_pointer:
    .short 23
    .quad boot_gdt

.section .bss.boot, "aw", @nobits
.balign 4096
boot_pml4: .skip 4096
boot_pdpt: .skip 4096
boot_pd:   .skip 4 * 4096
boot_stack: .skip 64 * 1024
boot_stack_end:
