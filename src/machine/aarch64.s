// The machine for aarch64: runs a table of kernel calls (see isa.rs) and knows nothing else.
// Position-independent, touches no stack while it runs a table. Registers:
//   x9 the instruction in hand   x10 the progress record   x11 the kinds   x12 argument 0   x13-x15 scratch
// The kernel clobbers x0 only and nothing else is called: so all of these are caller-saved, run() and clone() save
// nothing, and the return address stays where it is.
// `hint #34` is `bti c`, a no-op where there are no landing pads.

    .globl ringfence_0_1_machine_begin
    .hidden ringfence_0_1_machine_begin
    .p2align 2
ringfence_0_1_machine_begin:
.Lrf_begin:

// Entry of the image: the linker of images puts the table's address at ringfence_0_1_machine_begin - 16, the early
// progress record's at - 8. Stores argc, argv and envp of the new stack behind the early progress record (24, 32, 40).
    .globl ringfence_0_1_machine_image
    .hidden ringfence_0_1_machine_image
ringfence_0_1_machine_image:
    hint    #34
    adr     x13, .Lrf_begin
    ldp     x9, x10, [x13, #-16]
    ldr     x13, [sp]
    add     x14, sp, #8
    add     x15, x14, x13, lsl #3
    add     x15, x15, #8
    stp     x13, x14, [x10, #24]
    str     x15, [x10, #40]
    b       .Lrf_run

// i64 run(const insn *pc, void *progress): runs a table until Return.
    .globl ringfence_0_1_machine_run
    .hidden ringfence_0_1_machine_run
ringfence_0_1_machine_run:
    hint    #34
    mov     x9, x0
    mov     x10, x1
    b       .Lrf_run

// i64 clone(const u64 call[7], const insn *pc, void *progress): makes the kernel call (number, six arguments); the
// parent gets its result, a child (result 0) runs the table and never comes back.
    .globl ringfence_0_1_machine_clone
    .hidden ringfence_0_1_machine_clone
ringfence_0_1_machine_clone:
    hint    #34
    mov     x9, x1
    mov     x10, x2
    mov     x13, x0
    ldp     x8, x0, [x13]
    ldp     x1, x2, [x13, #16]
    ldp     x3, x4, [x13, #32]
    ldr     x5, [x13, #48]
    svc     #0
    cbz     x0, .Lrf_run
    ret

    .macro RF_ARG reg, index
    ldr     \reg, [x9, #(24 + 8 * \index)]
    ubfx    w13, w11, #(2 * \index), #2
    cbz     w13, 2f
    cmp     w13, #1
    b.ne    9f
    ldr     \reg, [\reg]
    b       2f
9:  ldrsw   \reg, [\reg]
2:
    .endm

.Lrf_next:
    add     x9, x9, #72
.Lrf_run:
    str     x9, [x10]
    ldrh    w11, [x9, #2]
    RF_ARG  x12, 0
    RF_ARG  x1, 1
    RF_ARG  x2, 2
    RF_ARG  x3, 3
    RF_ARG  x4, 4
    RF_ARG  x5, 5
    ldrb    w13, [x9]
    cbnz    w13, .Lrf_branch

// The result takes x0, so a call made again takes argument 0 from x12.
.Lrf_call:
    mov     x0, x12
    ldr     w8, [x9, #4]
    svc     #0
    cmn     x0, #4
    b.ne    3f
    ldrb    w13, [x9, #1]
    tbnz    w13, #0, .Lrf_call
3:  ldr     x13, [x9, #16]
    cbz     x13, 4f
    str     x0, [x13]
4:  cmn     x0, #4095
    b.lo    .Lrf_next
    neg     w0, w0
    ldrb    w13, [x9, #12]
    cmp     w0, w13
    b.eq    .Lrf_next
    ldrb    w13, [x9, #13]
    cmp     w0, w13
    b.eq    .Lrf_next
    ldrb    w13, [x9, #14]
    cmp     w0, w13
    b.eq    .Lrf_next
    ldrb    w13, [x9, #15]
    cmp     w0, w13
    b.eq    .Lrf_next
    str     x9, [x10, #8]
    str     w0, [x10, #16]
    ldrsw   x13, [x9, #8]
    cbz     x13, .Lrf_fail
    add     x9, x9, x13
    b       .Lrf_run

.Lrf_branch:
    cmp     w13, #1
    b.ne    .Lrf_jump
    ldr     w13, [x9, #4]
    cmp     w13, #2
    b.eq    6f
    and     x12, x12, x1
    cmp     x12, x2
    cset    w14, eq
    cmp     w14, w13
    b.eq    .Lrf_next
    b       7f
6:  cmp     x12, x1
    b.ge    .Lrf_next
7:  ldrsw   x13, [x9, #8]
    add     x9, x9, x13
    b       .Lrf_run

.Lrf_jump:
    cmp     w13, #2
    b.ne    .Lrf_set
    mov     x9, x12
    b       .Lrf_run

.Lrf_set:
    cmp     w13, #3
    b.ne    .Lrf_progress
    add     x12, x12, x1
    ldr     x13, [x9, #16]
    str     x12, [x13]
    b       .Lrf_next

.Lrf_progress:
    cmp     w13, #4
    b.ne    .Lrf_return
    mov     x10, x12
    b       .Lrf_next

.Lrf_return:
    cmp     w13, #6
    b.ne    .Lrf_fail
    mov     x0, x12
    ret

.Lrf_fail:
    mov     w13, #1
    str     w13, [x10, #20]
8:  mov     w8, #94
    mov     w0, #125
    svc     #0
    b       8b

    .globl ringfence_0_1_machine_end
    .hidden ringfence_0_1_machine_end
ringfence_0_1_machine_end:
