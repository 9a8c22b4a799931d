#include "textflag.h"

// The table's layout is described in table.go; offsets here and there must agree.

// func cloneRun(args unsafe.Pointer, size uintptr, hdr unsafe.Pointer) (pid, errno uintptr)
//
// All signals are blocked around clone3, so that the child never runs a handler. The child walks the
// table behind hdr without a stack: with CLONE_VM it shares the launcher's.
TEXT ·cloneRun(SB), NOSPLIT, $32-40
	MOVD	$-1, R9
	MOVD	R9, all-8(SP)
	MOVD	$2, R0                  // rt_sigprocmask(SIG_SETMASK, &all, &old, 8)
	MOVD	$all-8(SP), R1
	MOVD	$old-16(SP), R2
	MOVD	$8, R3
	MOVD	$135, R8
	SVC
	MOVD	hdr+16(FP), R19
	MOVD	args+0(FP), R0          // clone3(args, size)
	MOVD	size+8(FP), R1
	MOVD	$435, R8
	SVC
	CBZ	R0, child
	MOVD	R0, R20
	MOVD	$2, R0
	MOVD	$old-16(SP), R1
	MOVD	$0, R2
	MOVD	$8, R3
	MOVD	$135, R8
	SVC
	CMN	$4095, R20
	BCC	cloned
	NEG	R20, R20
	MOVD	ZR, pid+24(FP)
	MOVD	R20, errno+32(FP)
	RET
cloned:
	MOVD	R20, pid+24(FP)
	MOVD	ZR, errno+32(FP)
	RET

child:
	B	·walk(SB)

// walk runs a table and never returns. It is position independent and calls nothing, since its bytes are
// also the whole text of a container's first program (elf.go). There it is entered with all registers
// zero (start_thread), and the table is at its fixed address. System calls preserve R19 to R24.
TEXT ·walk(SB), NOSPLIT|NOFRAME, $0-0
	CBNZ	R19, begin
	MOVD	$0x400000, R19          // tableAddr
begin:
	MOVD	0(R19), R20             // the current entry
	MOVD	8(R19), R21             // the slots
next:
	MOVWU	56(R20), R22            // which arguments are slots
	MOVD	8(R20), R0
	MOVD	16(R20), R1
	MOVD	24(R20), R2
	MOVD	32(R20), R3
	MOVD	40(R20), R4
	MOVD	48(R20), R5
	CBZ	R22, enter
	TBZ	$0, R22, arg1
	MOVD	(R21)(R0<<3), R0
arg1:
	TBZ	$1, R22, arg2
	MOVD	(R21)(R1<<3), R1
arg2:
	TBZ	$2, R22, arg3
	MOVD	(R21)(R2<<3), R2
arg3:
	TBZ	$3, R22, arg4
	MOVD	(R21)(R3<<3), R3
arg4:
	TBZ	$4, R22, arg5
	MOVD	(R21)(R4<<3), R4
arg5:
	TBZ	$5, R22, enter
	MOVD	(R21)(R5<<3), R5
enter:
	MOVD	0(R20), R8
	TBNZ	$63, R8, report
	SVC
	CMN	$4095, R0
	BCS	failed
	MOVWU	92(R20), R9
	TBZ	$0, R9, good
	CBNZ	R0, good
	MOVD	$32, R0                 // EPIPE: end of file at a gate
	B	report
good:
	MOVW	60(R20), R9
	TBNZ	$63, R9, noout
	MOVD	R0, (R21)(R9<<3)
noout:
	MOVW	64(R20), R9
skip:
	ADD	$1, R9, R9
	LSL	$7, R9, R9
	ADD	R9, R20, R20
	B	next
failed:
	NEG	R0, R0
	MOVWU	68(R20), R10
	MOVW	72(R20), R9
	CMP	R10, R0
	BEQ	skip
	MOVWU	76(R20), R10
	MOVW	80(R20), R9
	CMP	R10, R0
	BEQ	skip
	MOVWU	84(R20), R10
	MOVW	88(R20), R9
	CMP	R10, R0
	BEQ	skip
report:
	MOVD	0(R19), R9
	SUB	R9, R20, R9
	LSR	$7, R9, R9
	MOVD	R9, 16(R19)
	MOVD	R0, 24(R19)
	MOVD	32(R19), R0             // write(sync, &failure, 16)
	ADD	$16, R19, R1
	MOVD	$16, R2
	MOVD	$64, R8
	SVC
exit:
	MOVD	$127, R0                // exit_group(127)
	MOVD	$94, R8
	SVC
	B	exit
	// walkEnd: where the copying stops
	WORD $0x54524542
	WORD $0x444e4548

// func walkAddress() uintptr
TEXT ·walkAddress(SB), NOSPLIT, $0-8
	MOVD	$·walk(SB), R0
	MOVD	R0, ret+0(FP)
	RET
