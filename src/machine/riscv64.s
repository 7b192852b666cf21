# The machine for riscv64: runs a table of kernel calls (see isa.rs) and knows nothing else.
# Position-independent, touches no stack while it runs a table. Registers:
#   t0 the instruction in hand   t1 the progress record   t2 the kinds   t3 argument 0   t4-t6 scratch
# The kernel clobbers a0 only and nothing else is called: so all of these are caller-saved, run() and clone() save
# nothing, and the return address stays where it is.
# Without relaxation all distances are known here; without compression the text is the same for each assembler.

    .option push
    .option norelax
    .option norvc
    .globl ringfence_0_1_machine_begin
    .hidden ringfence_0_1_machine_begin
    .p2align 2
ringfence_0_1_machine_begin:

# Entry of the image: the linker of images puts the table's address at ringfence_0_1_machine_begin - 16, the early
# progress record's at - 8. Stores argc, argv and envp of the new stack behind the early progress record (24, 32, 40).
# The first instruction gets its own address, which is begin.
    .globl ringfence_0_1_machine_image
    .hidden ringfence_0_1_machine_image
ringfence_0_1_machine_image:
    auipc   t4, 0
    ld      t0, -16(t4)
    ld      t1, -8(t4)
    ld      t4, 0(sp)
    sd      t4, 24(t1)
    addi    t5, sp, 8
    sd      t5, 32(t1)
    slli    t4, t4, 3
    add     t5, t5, t4
    addi    t5, t5, 8
    sd      t5, 40(t1)
    j       .Lrf_run

# i64 run(const insn *pc, void *progress): runs a table until Return.
    .globl ringfence_0_1_machine_run
    .hidden ringfence_0_1_machine_run
ringfence_0_1_machine_run:
    mv      t0, a0
    mv      t1, a1
    j       .Lrf_run

# i64 clone(const u64 call[7], const insn *pc, void *progress): makes the kernel call (number, six arguments); the
# parent gets its result, a child (result 0) runs the table and never comes back.
    .globl ringfence_0_1_machine_clone
    .hidden ringfence_0_1_machine_clone
ringfence_0_1_machine_clone:
    mv      t0, a1
    mv      t1, a2
    mv      t4, a0
    ld      a7, 0(t4)
    ld      a0, 8(t4)
    ld      a1, 16(t4)
    ld      a2, 24(t4)
    ld      a3, 32(t4)
    ld      a4, 40(t4)
    ld      a5, 48(t4)
    ecall
    beqz    a0, .Lrf_run
    ret

    .macro RF_ARG reg, index
    ld      \reg, (24 + 8 * \index)(t0)
    srli    t4, t2, 2 * \index
    andi    t4, t4, 3
    beqz    t4, 2f
    addi    t4, t4, -1
    bnez    t4, 9f
    ld      \reg, 0(\reg)
    j       2f
9:  lw      \reg, 0(\reg)
2:
    .endm

.Lrf_next:
    addi    t0, t0, 72
.Lrf_run:
    sd      t0, 0(t1)
    lhu     t2, 2(t0)
    RF_ARG  t3, 0
    RF_ARG  a1, 1
    RF_ARG  a2, 2
    RF_ARG  a3, 3
    RF_ARG  a4, 4
    RF_ARG  a5, 5
    lbu     t4, 0(t0)
    bnez    t4, .Lrf_branch

# The result takes a0, so a call made again takes argument 0 from t3.
.Lrf_call:
    mv      a0, t3
    lwu     a7, 4(t0)
    ecall
    li      t4, -4
    bne     a0, t4, 3f
    lbu     t4, 1(t0)
    andi    t4, t4, 1
    bnez    t4, .Lrf_call
3:  ld      t4, 16(t0)
    beqz    t4, 4f
    sd      a0, 0(t4)
4:  lui     t4, 0xfffff
    addi    t4, t4, 1
    bltu    a0, t4, .Lrf_next
    neg     a0, a0
    lbu     t4, 12(t0)
    beq     a0, t4, .Lrf_next
    lbu     t4, 13(t0)
    beq     a0, t4, .Lrf_next
    lbu     t4, 14(t0)
    beq     a0, t4, .Lrf_next
    lbu     t4, 15(t0)
    beq     a0, t4, .Lrf_next
    sd      t0, 8(t1)
    sw      a0, 16(t1)
    lw      t4, 8(t0)
    beqz    t4, .Lrf_fail
    add     t0, t0, t4
    j       .Lrf_run

.Lrf_branch:
    li      t5, 1
    bne     t4, t5, .Lrf_jump
    lwu     t4, 4(t0)
    li      t5, 2
    beq     t4, t5, 6f
    and     t3, t3, a1
    xor     t3, t3, a2
    seqz    t3, t3
    beq     t3, t4, .Lrf_next
    j       7f
6:  bge     t3, a1, .Lrf_next
7:  lw      t4, 8(t0)
    add     t0, t0, t4
    j       .Lrf_run

.Lrf_jump:
    li      t5, 2
    bne     t4, t5, .Lrf_set
    mv      t0, t3
    j       .Lrf_run

.Lrf_set:
    li      t5, 3
    bne     t4, t5, .Lrf_progress
    add     t3, t3, a1
    ld      t4, 16(t0)
    sd      t3, 0(t4)
    j       .Lrf_next

.Lrf_progress:
    li      t5, 4
    bne     t4, t5, .Lrf_return
    mv      t1, t3
    j       .Lrf_next

.Lrf_return:
    li      t5, 6
    bne     t4, t5, .Lrf_fail
    mv      a0, t3
    ret

.Lrf_fail:
    li      t4, 1
    sw      t4, 20(t1)
8:  li      a7, 94
    li      a0, 125
    ecall
    j       8b

    .globl ringfence_0_1_machine_end
    .hidden ringfence_0_1_machine_end
ringfence_0_1_machine_end:
    .option pop
