#include "textflag.h"

// The handler is called by the kernel with the C calling convention: DI is the signal's number. It
// runs on the thread's signal stack, uses nothing of Go, and may interrupt anything: all it does is
// write(pipe, &number, 1). The kernel restores every register afterwards.
TEXT ·handler(SB), NOSPLIT|NOFRAME, $0
	SUBQ	$16, SP
	MOVQ	DI, 0(SP)
	MOVL	·pipe(SB), DI
	MOVQ	SP, SI
	MOVQ	$1, DX
	MOVQ	$1, AX // SYS_write
	SYSCALL
	ADDQ	$16, SP
	RET

// The handler returns to this, and the kernel takes up what was interrupted.
TEXT ·restorer(SB), NOSPLIT|NOFRAME, $0
	MOVQ	$15, AX // SYS_rt_sigreturn
	SYSCALL
	INT	$3

// func handlerPC() uintptr
TEXT ·handlerPC(SB), NOSPLIT, $0-8
	MOVQ	$·handler(SB), AX
	MOVQ	AX, ret+0(FP)
	RET

// func restorerPC() uintptr
TEXT ·restorerPC(SB), NOSPLIT, $0-8
	MOVQ	$·restorer(SB), AX
	MOVQ	AX, ret+0(FP)
	RET
