#include "textflag.h"

// The handler is called by the kernel with the C calling convention: R0 is the signal's number. It
// runs on the thread's signal stack, uses nothing of Go, and may interrupt anything: all it does is
// write(pipe, &number, 1). The kernel restores every register afterwards.
TEXT ·handler(SB), NOSPLIT|NOFRAME, $0
	SUB	$16, RSP
	MOVD	R0, (RSP)
	MOVW	·pipe(SB), R0
	MOVD	RSP, R1
	MOVD	$1, R2
	MOVD	$64, R8 // SYS_write
	SVC
	ADD	$16, RSP
	RET

// The handler returns to this, and the kernel takes up what was interrupted.
TEXT ·restorer(SB), NOSPLIT|NOFRAME, $0
	MOVD	$139, R8 // SYS_rt_sigreturn
	SVC
	BRK

// func handlerPC() uintptr
TEXT ·handlerPC(SB), NOSPLIT, $0-8
	MOVD	$·handler(SB), R0
	MOVD	R0, ret+0(FP)
	RET

// func restorerPC() uintptr
TEXT ·restorerPC(SB), NOSPLIT, $0-8
	MOVD	$·restorer(SB), R0
	MOVD	R0, ret+0(FP)
	RET
