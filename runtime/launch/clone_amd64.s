#include "textflag.h"

// The table's layout is described in table.go; offsets here and there must agree.

// func cloneRun(args unsafe.Pointer, size uintptr, hdr unsafe.Pointer) (pid, errno uintptr)
//
// All signals are blocked around clone3, so that the child never runs a handler. The child walks the
// table behind hdr without a stack: with CLONE_VM it shares the launcher's.
TEXT ·cloneRun(SB), NOSPLIT, $32-40
	MOVQ	$-1, AX
	MOVQ	AX, all-8(SP)
	MOVQ	$14, AX                 // rt_sigprocmask(SIG_SETMASK, &all, &old, 8)
	MOVQ	$2, DI
	LEAQ	all-8(SP), SI
	LEAQ	old-16(SP), DX
	MOVQ	$8, R10
	SYSCALL
	MOVQ	hdr+16(FP), R12
	MOVQ	$435, AX                // clone3(args, size)
	MOVQ	args+0(FP), DI
	MOVQ	size+8(FP), SI
	SYSCALL
	TESTQ	AX, AX
	JEQ	child
	MOVQ	AX, R13
	MOVQ	$14, AX
	MOVQ	$2, DI
	LEAQ	old-16(SP), SI
	MOVQ	$0, DX
	MOVQ	$8, R10
	SYSCALL
	CMPQ	R13, $0xfffffffffffff001
	JLS	cloned
	NEGQ	R13
	MOVQ	$0, pid+24(FP)
	MOVQ	R13, errno+32(FP)
	RET
cloned:
	MOVQ	R13, pid+24(FP)
	MOVQ	$0, errno+32(FP)
	RET

child:
	JMP	·walk(SB)

// walk runs a table and never returns. It is position independent and calls nothing, since its bytes are
// also the whole text of a container's first program (elf.go). There it is entered with all registers
// zero (ELF_PLAT_INIT), and the table is at its fixed address. R12, R13, R15 and BX survive system calls.
TEXT ·walk(SB), NOSPLIT|NOFRAME, $0-0
	TESTQ	R12, R12
	JNE	begin
	MOVQ	$0x400000, R12          // tableAddr
begin:
	MOVQ	0(R12), R13             // the current entry
	MOVQ	8(R12), R15             // the slots
next:
	MOVL	56(R13), BX             // which arguments are slots
	MOVQ	8(R13), DI
	MOVQ	16(R13), SI
	MOVQ	24(R13), DX
	MOVQ	32(R13), R10
	MOVQ	40(R13), R8
	MOVQ	48(R13), R9
	TESTL	BX, BX
	JEQ	enter
	BTL	$0, BX
	JCC	arg1
	MOVQ	(R15)(DI*8), DI
arg1:
	BTL	$1, BX
	JCC	arg2
	MOVQ	(R15)(SI*8), SI
arg2:
	BTL	$2, BX
	JCC	arg3
	MOVQ	(R15)(DX*8), DX
arg3:
	BTL	$3, BX
	JCC	arg4
	MOVQ	(R15)(R10*8), R10
arg4:
	BTL	$4, BX
	JCC	arg5
	MOVQ	(R15)(R8*8), R8
arg5:
	BTL	$5, BX
	JCC	enter
	MOVQ	(R15)(R9*8), R9
enter:
	MOVQ	0(R13), AX
	TESTQ	AX, AX
	JLT	opfail
	SYSCALL
	CMPQ	AX, $0xfffffffffffff001
	JCC	failed
	TESTL	$1, 92(R13)
	JEQ	good
	TESTQ	AX, AX
	JNE	good
	MOVQ	$32, AX                 // EPIPE: end of file at a gate
	JMP	report
good:
	MOVLQSX	60(R13), CX
	TESTQ	CX, CX
	JLT	noout
	MOVQ	AX, (R15)(CX*8)
noout:
	MOVLQSX	64(R13), CX
skip:
	ADDQ	$1, CX
	SHLQ	$7, CX
	ADDQ	CX, R13
	JMP	next
failed:
	NEGQ	AX
	MOVLQSX	72(R13), CX
	CMPL	AX, 68(R13)
	JEQ	skip
	MOVLQSX	80(R13), CX
	CMPL	AX, 76(R13)
	JEQ	skip
	MOVLQSX	88(R13), CX
	CMPL	AX, 84(R13)
	JEQ	skip
report:
	MOVQ	R13, CX
	SUBQ	0(R12), CX
	SHRQ	$7, CX
	MOVQ	CX, 16(R12)
	MOVQ	AX, 24(R12)
	MOVQ	$1, AX                  // write(sync, &failure, 16)
	MOVQ	32(R12), DI
	LEAQ	16(R12), SI
	MOVQ	$16, DX
	SYSCALL
exit:
	MOVQ	$231, AX                // exit_group(127)
	MOVQ	$127, DI
	SYSCALL
	JMP	exit
opfail:
	MOVQ	DI, AX
	JMP	report
	// walkEnd: where the copying stops
	BYTE $0x42; BYTE $0x45; BYTE $0x52; BYTE $0x54; BYTE $0x48; BYTE $0x45; BYTE $0x4e; BYTE $0x44

// func walkAddress() uintptr
TEXT ·walkAddress(SB), NOSPLIT, $0-8
	LEAQ	·walk(SB), AX
	MOVQ	AX, ret+0(FP)
	RET
