package seccomp

import (
	"runtime"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// abi is one numbering of system calls as a filter sees it.
type abi struct {
	name  specs.Arch
	audit uint32 // AUDIT_ARCH_* of linux/audit.h: what seccomp_data.arch holds
	table uint8  // row of numbers
	base  uint32 // added to each number of the table
	wide  bool   // arguments are compared in 64 bits
	big   bool   // big endian: the high word of an argument comes first
}

// x32 calls have this bit set in their number; audit architecture and arguments are x86_64's.
const x32Bit = 0x40000000

// armPrivate is where arm's calls outside the table begin (__ARM_NR_BASE).
const armPrivate = 0x0f0000

// audit architecture bits
const (
	audit64 = 0x80000000
	auditLE = 0x40000000
)

// abis are all that libseccomp 2.6 and the runtime spec 1.3 name. x32 is compared in 32 bits, as
// libseccomp does: its arguments are 32 bits wide to whoever writes a profile.
var abis = [...]abi{
	{specs.ArchX86, 3 | auditLE, tableX86, 0, false, false},
	{specs.ArchX86_64, 62 | audit64 | auditLE, tableX8664, 0, true, false},
	{specs.ArchX32, 62 | audit64 | auditLE, tableX32, x32Bit, false, false},
	{specs.ArchARM, 40 | auditLE, tableARM, 0, false, false},
	{specs.ArchAARCH64, 183 | audit64 | auditLE, tableARM64, 0, true, false},
	{specs.ArchMIPS, 8, tableMIPSO32, 4000, false, true},
	{specs.ArchMIPS64, 8 | audit64, tableMIPSN64, 5000, true, true},
	{specs.ArchMIPS64N32, 8 | audit64 | 0x20000000, tableMIPSN32, 6000, false, true},
	{specs.ArchMIPSEL, 8 | auditLE, tableMIPSO32, 4000, false, false},
	{specs.ArchMIPSEL64, 8 | audit64 | auditLE, tableMIPSN64, 5000, true, false},
	{specs.ArchMIPSEL64N32, 8 | audit64 | auditLE | 0x20000000, tableMIPSN32, 6000, false, false},
	{specs.ArchPPC, 20, tablePPC, 0, false, true},
	{specs.ArchPPC64, 21 | audit64, tablePPC64, 0, true, true},
	{specs.ArchPPC64LE, 21 | audit64 | auditLE, tablePPC64, 0, true, false},
	{specs.ArchS390, 22, tableS390, 0, false, true},
	{specs.ArchS390X, 22 | audit64, tableS390X, 0, true, true},
	{specs.ArchPARISC, 15, tablePARISC, 0, false, true},
	{specs.ArchPARISC64, 15 | audit64, tablePARISC64, 0, true, true},
	{specs.ArchRISCV64, 243 | audit64 | auditLE, tableRISCV64, 0, true, false},
	{specs.ArchLOONGARCH64, 258 | audit64 | auditLE, tableLOONGARCH64, 0, true, false},
	{specs.ArchM68K, 4, tableM68K, 0, false, true},
	{specs.ArchSH, 42 | auditLE, tableSH, 0, false, false},
	{specs.ArchSHEB, 42, tableSH, 0, false, true},
}

// Native is the architecture this program was built for, under the name libseccomp gives it; it is
// "" where a seccomp filter cannot be made.
func Native() specs.Arch {
	switch runtime.GOARCH {
	case "386":
		return specs.ArchX86
	case "amd64":
		return specs.ArchX86_64
	case "arm":
		return specs.ArchARM
	case "arm64":
		return specs.ArchAARCH64
	case "loong64":
		return specs.ArchLOONGARCH64
	case "mips":
		return specs.ArchMIPS
	case "mipsle":
		return specs.ArchMIPSEL
	case "mips64":
		return specs.ArchMIPS64
	case "mips64le":
		return specs.ArchMIPSEL64
	case "ppc64":
		return specs.ArchPPC64
	case "ppc64le":
		return specs.ArchPPC64LE
	case "riscv64":
		return specs.ArchRISCV64
	case "s390x":
		return specs.ArchS390X
	}
	return ""
}

func abiOf(name specs.Arch) *abi {
	for i := range abis {
		if abis[i].name == name {
			return &abis[i]
		}
	}
	return nil
}

// KnownArch reports whether a profile may name the architecture.
func KnownArch(name specs.Arch) bool { return abiOf(name) != nil }

// number gives the i-th name's number in the ABI, as the kernel passes it to a filter.
func (a *abi) number(i int) (uint32, bool) {
	switch n := numbers[a.table][i]; {
	case n >= 0:
		return a.base + uint32(n), true
	case n < -1:
		return armPrivate + uint32(-n-1), true
	}
	return 0, false
}

// nameIndex finds a name's place in the tables, or -1.
func nameIndex(name string) int {
	lo, hi := 0, nameCount
	for lo < hi {
		mid := int(uint(lo+hi) / 2)
		switch c := strings.Compare(nameText[nameStart[mid]:nameStart[mid+1]], name); {
		case c == 0:
			return mid
		case c < 0:
			lo = mid + 1
		default:
			hi = mid
		}
	}
	return -1
}

// Name gives the name of a system call from its number on an architecture, or "".
func Name(arch specs.Arch, nr uint32) string {
	a := abiOf(arch)
	if a == nil {
		return ""
	}
	for i := range nameCount {
		if n, ok := a.number(i); ok && n == nr {
			return nameText[nameStart[i]:nameStart[i+1]]
		}
	}
	return ""
}
