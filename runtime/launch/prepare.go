package launch

import (
	"encoding/binary"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// prepare makes Prepare's calls on the calling thread, with slots for results. It returns the index of
// the step that failed.
func prepare(steps []Step, slots []int) (int, error) {
	for i := 0; i < len(steps); {
		st := &steps[i]
		r, err := call(st, slots)
		if err == nil {
			if st.Out != NoSlot {
				slots[st.Out] = r
			}
			i += 1 + st.OnOK
			continue
		}
		skip, ok := rescue(st, err)
		if !ok {
			return i, err
		}
		i += 1 + skip
	}
	return 0, nil
}

func rescue(st *Step, err error) (int, bool) {
	for _, r := range st.OnErr {
		if r.Errno == err {
			return r.Skip, true
		}
	}
	return 0, false
}

// call makes one call. What its pointers point to lives on the heap, which does not move.
func call(st *Step, slots []int) (int, error) {
	if st.Nr < 0 {
		return runOp(st, slots)
	}
	var a [6]uintptr
	for j := range a {
		switch arg := &st.Args[j]; arg.Kind {
		case ArgInt:
			a[j] = uintptr(arg.N)
		case ArgSlot:
			a[j] = uintptr(slots[arg.N])
		case ArgData:
			a[j] = address(arg.D.Bytes)
			for _, ptr := range arg.D.Ptrs {
				binary.LittleEndian.PutUint64(arg.D.Bytes[ptr.Off:], uint64(address(ptr.To)))
			}
			for _, f := range arg.D.Fill {
				binary.LittleEndian.PutUint64(arg.D.Bytes[f.Off:], uint64(int64(slots[f.Slot])))
			}
		}
	}
	for {
		r, _, errno := unix.Syscall6(uintptr(st.Nr), a[0], a[1], a[2], a[3], a[4], a[5])
		runtime.KeepAlive(st)
		if errno == unix.EINTR {
			continue // the runtime's own preemption signals may land here
		}
		if errno != 0 {
			return -1, errno
		}
		return int(r), nil
	}
}

func address(b []byte) uintptr { return uintptr(unsafe.Pointer(unsafe.SliceData(b))) }
