#include "textflag.h"

// See entry_amd64.s: the same for arm64.

#define words 8192

#define SYS_prctl 167
#define PR_SET_TIMERSLACK 29

GLOBL vector<>(SB), NOPTR, $(words*8)

DATA variable<>+0(SB)/8, $"GOMAXPRO"
DATA variable<>+8(SB)/8, $"CS=1\x00\x00\x00\x00"
GLOBL variable<>(SB), RODATA|NOPTR, $16

TEXT _berth_shortlived(SB), NOSPLIT|NOFRAME|TOPFRAME, $0
	MOVD	$PR_SET_TIMERSLACK, R0
	MOVD	$10000000, R1 // nanoseconds
	MOVD	$SYS_prctl, R8
	SVC
	MOVD	0(RSP), R0 // argc
	ADD	$8, RSP, R1 // argv
	MOVD	$vector<>(SB), R3
	MOVD	R1, R4 // from
	MOVD	R3, R5 // to
	MOVD	$((words-4)*8), R6
	ADD	R3, R6, R6 // the last place for a pair
args:
	CMP	R6, R5
	BGE	plain
	MOVD.P	8(R4), R7
	MOVD.P	R7, 8(R5)
	CBNZ	R7, args
env:
	CMP	R6, R5
	BGE	plain
	MOVD.P	8(R4), R7
	MOVD.P	R7, 8(R5)
	CBNZ	R7, env
	MOVD	$variable<>(SB), R7 // over the terminating 0
	MOVD	R7, -8(R5)
	MOVD.P	ZR, 8(R5)
aux:
	CMP	R6, R5
	BGE	plain
	MOVD.P	8(R4), R7
	MOVD.P	R7, 8(R5)
	MOVD.P	8(R4), R9
	MOVD.P	R9, 8(R5)
	CBNZ	R7, aux // AT_NULL
	MOVD	R3, R1
plain:
	B	runtime·rt0_go(SB)
