# The machine for x86_64: runs a table of kernel calls (see isa.rs) and knows nothing else.
# Position-independent, touches no stack while it runs a table. Registers:
#   r12 the instruction in hand   r13 the progress record   r15 scratch for the kinds
# The kernel's calling convention clobbers rax, rcx and r11 only.

    .globl ringfence_0_1_machine_begin
    .hidden ringfence_0_1_machine_begin
ringfence_0_1_machine_begin:
.Lrf_begin:

# Entry of the image: the linker of images puts the table's address at ringfence_0_1_machine_begin - 16, the early
# progress record's at - 8. Stores argc, argv and envp of the new stack behind the early progress record (24, 32, 40).
    .globl ringfence_0_1_machine_image
    .hidden ringfence_0_1_machine_image
ringfence_0_1_machine_image:
    mov     r12, qword ptr [rip + .Lrf_begin - 16]
    mov     r13, qword ptr [rip + .Lrf_begin - 8]
    mov     rax, qword ptr [rsp]
    mov     qword ptr [r13 + 24], rax
    lea     rcx, [rsp + 8]
    mov     qword ptr [r13 + 32], rcx
    lea     rcx, [rcx + 8*rax + 8]
    mov     qword ptr [r13 + 40], rcx
    jmp     .Lrf_run

# i64 run(const insn *pc, void *progress): runs a table until Return.
    .globl ringfence_0_1_machine_run
    .hidden ringfence_0_1_machine_run
ringfence_0_1_machine_run:
    push    r12
    push    r13
    push    r15
    mov     r12, rdi
    mov     r13, rsi
    jmp     .Lrf_run

# i64 clone(const u64 call[7], const insn *pc, void *progress): makes the kernel call {number, six arguments}; the parent
# gets its result, a child (result 0) runs the table and never comes back.
    .globl ringfence_0_1_machine_clone
    .hidden ringfence_0_1_machine_clone
ringfence_0_1_machine_clone:
    push    r12
    push    r13
    push    r15
    mov     r12, rsi
    mov     r13, rdx
    mov     r11, rdi
    mov     rax, qword ptr [r11]
    mov     rdi, qword ptr [r11 + 8]
    mov     rsi, qword ptr [r11 + 16]
    mov     rdx, qword ptr [r11 + 24]
    mov     r10, qword ptr [r11 + 32]
    mov     r8,  qword ptr [r11 + 40]
    mov     r9,  qword ptr [r11 + 48]
    syscall
    test    rax, rax
    jz      .Lrf_run
    pop     r15
    pop     r13
    pop     r12
    ret

    .macro RF_ARG reg, index
    mov     \reg, qword ptr [r12 + 24 + 8*\index]
    mov     eax, r15d
    shr     eax, 2*\index
    and     eax, 3
    jz      2f
    cmp     eax, 1
    jne     9f
    mov     \reg, qword ptr [\reg]
    jmp     2f
9:  movsxd  \reg, dword ptr [\reg]
2:
    .endm

.Lrf_next:
    add     r12, 72
.Lrf_run:
    mov     qword ptr [r13], r12
    movzx   r15d, word ptr [r12 + 2]
    RF_ARG  rdi, 0
    RF_ARG  rsi, 1
    RF_ARG  rdx, 2
    RF_ARG  r10, 3
    RF_ARG  r8, 4
    RF_ARG  r9, 5
    movzx   ecx, byte ptr [r12]
    test    ecx, ecx
    jnz     .Lrf_branch

.Lrf_call:
    mov     eax, dword ptr [r12 + 4]
    syscall
    cmp     rax, -4
    jne     3f
    test    byte ptr [r12 + 1], 1
    jnz     .Lrf_call
3:  mov     rcx, qword ptr [r12 + 16]
    test    rcx, rcx
    jz      4f
    mov     qword ptr [rcx], rax
4:  cmp     rax, -4095
    jb      .Lrf_next
    neg     eax
    cmp     eax, 255
    ja      5f
    cmp     al, byte ptr [r12 + 12]
    je      .Lrf_next
    cmp     al, byte ptr [r12 + 13]
    je      .Lrf_next
    cmp     al, byte ptr [r12 + 14]
    je      .Lrf_next
    cmp     al, byte ptr [r12 + 15]
    je      .Lrf_next
5:  mov     qword ptr [r13 + 8], r12
    mov     dword ptr [r13 + 16], eax
    movsxd  rcx, dword ptr [r12 + 8]
    test    rcx, rcx
    jz      .Lrf_fail
    add     r12, rcx
    jmp     .Lrf_run

.Lrf_branch:
    cmp     ecx, 1
    jne     .Lrf_jump
    mov     eax, dword ptr [r12 + 4]
    cmp     eax, 2
    je      6f
    and     rdi, rsi
    cmp     rdi, rdx
    sete    cl
    xor     cl, al
    test    cl, cl
    jz      .Lrf_next
    jmp     7f
6:  cmp     rdi, rsi
    jge     .Lrf_next
7:  movsxd  rcx, dword ptr [r12 + 8]
    add     r12, rcx
    jmp     .Lrf_run

.Lrf_jump:
    cmp     ecx, 2
    jne     .Lrf_set
    mov     r12, rdi
    jmp     .Lrf_run

.Lrf_set:
    cmp     ecx, 3
    jne     .Lrf_progress
    add     rdi, rsi
    mov     rcx, qword ptr [r12 + 16]
    mov     qword ptr [rcx], rdi
    jmp     .Lrf_next

.Lrf_progress:
    cmp     ecx, 4
    jne     .Lrf_return
    mov     r13, rdi
    jmp     .Lrf_next

.Lrf_return:
    cmp     ecx, 6
    jne     .Lrf_fail
    mov     rax, rdi
    pop     r15
    pop     r13
    pop     r12
    ret

.Lrf_fail:
    mov     dword ptr [r13 + 20], 1
8:  mov     eax, 231
    mov     edi, 125
    syscall
    jmp     8b

    .globl ringfence_0_1_machine_end
    .hidden ringfence_0_1_machine_end
ringfence_0_1_machine_end:
