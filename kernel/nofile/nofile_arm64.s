#include "textflag.h"

// func getNoFile(limits *[2]uint64) (errno uintptr)
TEXT ·getNoFile(SB), NOSPLIT, $0-16
	MOVD	$0, R0                  // this process
	MOVD	$7, R1                  // RLIMIT_NOFILE
	MOVD	$0, R2
	MOVD	limits+0(FP), R3
	MOVD	$261, R8                // prlimit64
	SVC
	MOVD	R0, errno+8(FP)
	RET
