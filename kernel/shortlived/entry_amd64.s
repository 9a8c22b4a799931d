#include "textflag.h"

// The kernel starts a program with its stack at: argc, argv…, 0, envp…, 0, pairs of auxv up to AT_NULL
// (System V ABI, "Initial Process Stack"). The entry copies all that into vector, with the variable as
// the last of envp (the first of a name counts: a user's own stands), and goes on where the runtime's own entry goes. What does not fit is left as it
// is: then the program starts with as many processors as there are.

// words is how many pointers vector holds: enough for thousands of arguments and variables.
#define words 8192

#define SYS_prctl 157
#define PR_SET_TIMERSLACK 29

GLOBL vector<>(SB), NOPTR, $(words*8)

DATA variable<>+0(SB)/8, $"GOMAXPRO"
DATA variable<>+8(SB)/8, $"CS=1\x00\x00\x00\x00"
GLOBL variable<>(SB), RODATA|NOPTR, $16

TEXT _berth_shortlived(SB), NOSPLIT|NOFRAME|TOPFRAME, $0
	MOVQ	$PR_SET_TIMERSLACK, DI
	MOVQ	$10000000, SI // nanoseconds
	MOVQ	$SYS_prctl, AX
	SYSCALL
	MOVQ	0(SP), DI // argc
	LEAQ	8(SP), SI // argv
	LEAQ	vector<>(SB), BX
	MOVQ	SI, R8 // from
	MOVQ	BX, R9 // to
	LEAQ	((words-4)*8)(BX), R10 // the last place for a pair
args:
	CMPQ	R9, R10
	JGE	plain
	MOVQ	(R8), AX
	MOVQ	AX, (R9)
	ADDQ	$8, R8
	ADDQ	$8, R9
	TESTQ	AX, AX
	JNE	args
env:
	CMPQ	R9, R10
	JGE	plain
	MOVQ	(R8), AX
	MOVQ	AX, (R9)
	ADDQ	$8, R8
	ADDQ	$8, R9
	TESTQ	AX, AX
	JNE	env
	LEAQ	variable<>(SB), AX // over the terminating 0
	MOVQ	AX, -8(R9)
	MOVQ	$0, (R9)
	ADDQ	$8, R9
aux:
	CMPQ	R9, R10
	JGE	plain
	MOVQ	(R8), AX
	MOVQ	AX, (R9)
	MOVQ	8(R8), CX
	MOVQ	CX, 8(R9)
	ADDQ	$16, R8
	ADDQ	$16, R9
	TESTQ	AX, AX // AT_NULL
	JNE	aux
	MOVQ	BX, SI
plain:
	JMP	runtime·rt0_go(SB)
