# From 32-bit protected mode, as PVH and Multiboot2 leave it, to Rust in the higher half.
#
#   pvh_entry  ──┐
#   mb2_entry  ──┴─> common32 ─> page tables ─> long mode ─> long64 ─> boot_main(protocol, information)
#
# The tables made here map the first 4 GiB three times, all of it writable and executable: at 0, at
# the direct map's base and, its first GiB, at the kernel's base. They serve until `tables.rs` has built the final
# ones, and later each further CPU on its way from real mode.
#
# No Multiboot1 header: QEMU would find it first and refuse the 64-bit file.

.section .boot.header, "a"
.balign 8
mb2_header:
    .long 0xe85250d6, 0, mb2_header_end - mb2_header
    .long -(0xe85250d6 + 0 + (mb2_header_end - mb2_header))
    .short 3, 0                         # entry address
    .long 12
    .long mb2_entry
    .balign 8
    .short 6, 0                         # modules start on a page
    .long 8
    .short 0, 0                         # end of tags
    .long 8
mb2_header_end:

.section .note.pvh, "a", @note
.balign 4
    .long 4, 8, 18                      # name size, descriptor size, XEN_ELFNOTE_PHYS32_ENTRY
    .asciz "Xen"
    .quad pvh_entry

.section .boot.text, "ax"
.code32
.global pvh_entry
pvh_entry:
    mov $0x336ec578, %esi               # the magic of PVH's start information names the protocol
    mov %ebx, %edi
    jmp common32

mb2_entry:
    mov %eax, %esi
    mov %ebx, %edi

# esi: protocol's magic, edi: physical address of its information
common32:
    cli
    cld

    mov $0x80000000, %eax
    cpuid
    cmp $0x80000001, %eax
    jb no_long_mode
    mov $0x80000001, %eax
    cpuid
    test $(1 << 29), %edx
    jz no_long_mode
    test $(1 << 20), %edx
    jz no_nx

    # Four page directories of 2 MiB pages: present, writable, large.
    mov $boot_pd, %ebx
    mov $0x83, %eax
    mov $2048, %ecx
1:  mov %eax, (%ebx)
    movl $0, 4(%ebx)
    add $0x200000, %eax
    add $8, %ebx
    dec %ecx
    jnz 1b

    mov $boot_pd + 3, %eax
    mov %eax, boot_pdpt_kernel + 510 * 8
    mov $boot_pdpt, %ebx
    mov $4, %ecx
2:  mov %eax, (%ebx)
    add $4096, %eax
    add $8, %ebx
    dec %ecx
    jnz 2b

    movl $boot_pdpt + 3, boot_pml4
    movl $boot_pdpt + 3, boot_pml4 + 256 * 8
    movl $boot_pdpt_kernel + 3, boot_pml4 + 511 * 8

    mov $boot_pml4, %eax
    mov %eax, %cr3
    mov %cr4, %eax
    or $0x620, %eax                     # PAE, OSFXSR, OSXMMEXCPT
    mov %eax, %cr4
    mov $0xc0000080, %ecx               # EFER
    rdmsr
    or $0x900, %eax                     # LME, NXE
    wrmsr
    mov %cr0, %eax
    and $~0x60000004, %eax              # not EM; not CD, NW, which Bochs' firmware leaves set
    or $0x80010022, %eax                # PG, WP, NE, MP
    mov %eax, %cr0
    lgdt boot_gdt_pointer
    ljmp $8, $long64

no_long_mode:
    mov $text_no_long_mode, %ebx
    jmp refuse
no_nx:
    mov $text_no_nx, %ebx

# ebx: text that names what the CPU lacks. COM1 is taken as the firmware left it, at 115200 8N1 if it did not.
refuse:
    mov $0x3fb, %edx
    mov $3, %al
    out %al, %dx
    mov $0x3f8, %edx
3:  mov (%ebx), %al
    test %al, %al
    jz 4f
    out %al, %dx
    inc %ebx
    mov $0x4000, %ecx                   # time for the byte to leave, bounded
5:  dec %ecx
    jnz 5b
    jmp 3b
4:  mov $0x11, %al                      # QEMU's isa-debug-exit: failure
    out %al, $0xf4
6:  hlt
    jmp 6b

text_no_long_mode: .asciz "tidepool: this CPU lacks 64-bit mode\n"
text_no_nx:        .asciz "tidepool: this CPU lacks no-execute pages (NX)\n"

.code64
long64:
    mov $16, %eax
    mov %eax, %ds
    mov %eax, %es
    mov %eax, %ss
    xor %eax, %eax
    mov %eax, %fs
    mov %eax, %gs
    movabs $boot_stack_top, %rsp
    xor %ebp, %ebp                      # ends the chain of frames
    movabs $boot_main, %rax
    xchg %esi, %edi                     # boot_main(protocol, information)
    call *%rax
    ud2

.balign 8
boot_gdt:
    .quad 0, 0x00af9b000000ffff, 0x00cf93000000ffff
boot_gdt_pointer:
    .short 23
    .long boot_gdt

.section .boot.bss, "aw", @nobits
.balign 4096
.global boot_pml4
boot_pml4:        .skip 4096
boot_pdpt:        .skip 4096
boot_pdpt_kernel: .skip 4096
boot_pd:          .skip 4 * 4096
