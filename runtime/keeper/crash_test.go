package keeper

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"berth/base/failpoint"
	"berth/base/fault"

	"golang.org/x/sys/unix"
)

// soak is how often the crash tests repeat: BERTH_SOAK=1000 for a night.
func soak(t *testing.T, few int) (rounds int, rnd *rand.Rand) {
	t.Helper()
	rounds = few
	if n, err := strconv.Atoi(os.Getenv("BERTH_SOAK")); err == nil {
		rounds = n
	}
	seed := uint64(time.Now().UnixNano())
	if n, err := strconv.ParseUint(os.Getenv("BERTH_SEED"), 10, 64); err == nil {
		seed = n
	}
	t.Logf("BERTH_SEED=%d", seed)
	return rounds, rand.New(rand.NewPCG(seed, 1))
}

func randomWait(rnd *rand.Rand, most time.Duration) {
	time.Sleep(time.Duration(rnd.Int64N(int64(most))))
}

// exitInfo reports whether the kernel tells how a process ended that is not our child (Linux 6.15).
func exitInfo(t testing.TB) bool {
	cmd := exec.Command("/bin/true")
	fd := -1
	cmd.SysProcAttr = &syscall.SysProcAttr{PidFD: &fd}
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
	if fd < 0 {
		return false
	}
	defer unix.Close(fd)
	info := unix.PidfdInfo{Mask: unix.PIDFD_INFO_EXIT}
	return unix.IoctlPidfdInfo(fd, &info) == nil && info.Mask&unix.PIDFD_INFO_EXIT != 0
}

func (r *rig) checkAdopted(x Exit, code int) {
	r.t.Helper()
	if x.Unknown {
		if exitInfo(r.t) {
			r.t.Errorf("%s/%s: the exit is unknown on a kernel that tells it", x.ID, x.Proc)
		}
		return
	}
	if x.Code != code {
		r.t.Errorf("%+v, want code %d", x, code)
	}
}

// TestKeeperKilled kills the keeper again and again while a process writes lines as fast as it can,
// another sits at a terminal with a client, and a third writes to a framed attachment: no line may
// be lost, repeated or torn, the terminal's client stays connected, exits are known.
func TestKeeperKilled(t *testing.T) {
	rounds, rnd := soak(t, 12)
	r := newRig(t)
	r.launch(Launch{ID: "chatty", Log: r.logCfg("chatty"), Program: program(self(t), "child-count", "0", "0")})
	r.launch(Launch{ID: "both", Log: r.logCfg("both"), Program: program(self(t), "child-count", "0", "50", "both")})
	st := r.launch(Launch{ID: "shell", Terminal: true, Stdin: true, Log: r.logCfg("shell"), Program: sh("stty -echo; exec /bin/sh -i"),
		Attach: []AttachRequest{{Stdin: true, Stdout: true}}})
	shell := bufio.NewReader(st.Attached[0])
	fr := r.launch(Launch{ID: "framed", Log: r.logCfg("framed"), Program: program(self(t), "child-count", "0", "200", "both"),
		Attach: []AttachRequest{{Stdout: true, Stderr: true, Framed: true}}})
	framed := make(chan []byte)
	go func() { b, _ := io.ReadAll(fr.Attached[0]); framed <- b }()

	for i := range rounds {
		randomWait(rnd, 60*time.Millisecond)
		pid := r.keeperPID()
		syscall.Kill(pid, syscall.SIGKILL)
		if i%3 == 0 { // now and then again while it is being replaced
			randomWait(rnd, 30*time.Millisecond)
			if pid := lockHolder(r.root); pid != "" {
				n, _ := strconv.Atoi(pid)
				syscall.Kill(n, syscall.SIGKILL)
			}
		}
		want := fmt.Sprintf("r%d.%d", i, i*7)
		fmt.Fprintf(st.Attached[0], "echo r%d.$((%d*7))\n", i, i)
		st.Attached[0].SetReadDeadline(time.Now().Add(patience(20 * time.Second)))
		for {
			line, err := shell.ReadString('\n')
			if err != nil {
				t.Fatalf("round %d: the terminal's client lost its shell: %v %q", i, err, line)
			}
			if strings.Contains(line, want) {
				break
			}
		}
		if r.keeperPID() == pid {
			t.Fatal("the dead keeper answers")
		}
	}
	fmt.Fprintf(st.Attached[0], "exit 7\n")
	r.checkAdopted(r.exitOf("shell", ""), 7)
	for _, id := range []string{"chatty", "both", "framed"} {
		if err := r.c.Signal(r.ctx(), id, "", 15); err != nil {
			t.Fatal(id, err)
		}
		r.checkAdopted(r.exitOf(id, ""), 143)
	}
	if b := <-framed; true {
		got := deframe(t, b)
		all := records(t, r.logPath("framed"))
		if got[1] != text(all, "stdout") || got[2] != text(all, "stderr") {
			t.Errorf("the framed client got %d+%d bytes, the log %d+%d", len(got[1]), len(got[2]), len(text(all, "stdout")), len(text(all, "stderr")))
		}
	}
	for _, id := range []string{"chatty", "both", "framed"} {
		all := records(t, r.logPath(id))
		if last := all[len(all)-1].Log; !strings.HasSuffix(last, "\n") {
			all = all[:len(all)-1] // killed within a line
		}
		if id != "chatty" {
			all = dropTornTails(all)
		}
		t.Logf("%s: %d lines", id, countLines(t, all, id != "chatty"))
	}
}

// dropTornTails takes unfinished last lines out, where a process was killed within one.
func dropTornTails(all []record) (out []record) {
	for i, x := range all {
		if strings.HasSuffix(x.Log, "\n") || i < len(all)-3 {
			out = append(out, x)
		}
	}
	return out
}

// TestKeeperKilledRotating does the same to a log that rotates all the time.
func TestKeeperKilledRotating(t *testing.T) {
	rounds, rnd := soak(t, 8)
	r := newRig(t)
	log := r.logCfg("rot")
	log.MaxSize, log.MaxFiles = 4000, 1000
	if rnd.IntN(2) == 0 {
		log.Format = "local"
	}
	r.launch(Launch{ID: "rot", Log: log, Program: program(self(t), "child-count", "0", "20")})
	for range rounds {
		randomWait(rnd, 40*time.Millisecond)
		syscall.Kill(r.keeperPID(), syscall.SIGKILL)
	}
	r.keeperPID()
	if err := r.c.Signal(r.ctx(), "rot", "", 15); err != nil {
		t.Fatal(err)
	}
	r.checkAdopted(r.exitOf("rot", ""), 143)
	var all []record
	files := 0
	for i := 999; i >= 0; i-- {
		p := log.Path
		if i > 0 {
			p += "." + strconv.Itoa(i)
		}
		if _, err := os.Stat(p); err == nil {
			all = append(all, records(t, p)...)
			files++
		}
	}
	first := 0
	fmt.Sscanf(all[0].Log, "line %d", &first)
	for i, x := range all {
		if want := fmt.Sprintf("line %d ", first+i); !strings.HasPrefix(x.Log, want) && i < len(all)-1 {
			t.Fatalf("record %d is %q, want %q", i, x.Log, want)
		}
	}
	t.Logf("%d lines in %d files", len(all), files)
}

// TestBothDie: nobody holds insurance. Pipes are found again through /proc, a terminal is not, and
// what ended meanwhile is honestly unknown.
func TestBothDie(t *testing.T) {
	r := newRig(t)
	r.launch(Launch{ID: "quiet", Log: r.logCfg("quiet"), Stdin: true, Program: sh("while read x; do echo $x; done; exit 6")})
	r.launch(Launch{ID: "short", Program: sh("while [ ! -e " + r.root + "/go ]; do sleep 0.02; done; exit 1")})
	r.launch(Launch{ID: "done", Program: sh("exit 2")})
	eventually(t, "done has ended", func() bool {
		all, _ := r.c.List(r.ctx())
		for _, p := range all {
			if p.ID == "done" {
				return !p.Running
			}
		}
		return false
	})
	pid := r.keeperPID()
	r.c.Close()
	syscall.Kill(pid, syscall.SIGKILL)
	os.WriteFile(r.root+"/go", nil, 0o600)
	time.Sleep(300 * time.Millisecond)
	r.open()
	got := map[string]Exit{}
	for len(got) < 3 {
		x := r.exit()
		got[x.ID] = x
	}
	if x := got["done"]; x.Code != 2 || x.Unknown {
		t.Errorf("journalled exit: %+v", x)
	}
	// Known only where init has not yet reaped it.
	if x := got["short"]; x.Unknown && x.Code != 255 || !x.Unknown && x.Code != 1 {
		t.Errorf("exit that nobody saw: %+v", x)
	}
	// Its stdin ended with the keeper: that is what cannot be helped.
	if x := got["quiet"]; x.Unknown && x.Code != 255 || !x.Unknown && x.Code != 6 {
		t.Errorf("%+v", x)
	}
}

// TestFoundByPid: a process that did nothing while no keeper was there goes on, with its output.
func TestFoundByPid(t *testing.T) {
	r := newRig(t)
	st := r.launch(Launch{ID: "p", Log: r.logCfg("p"), Program: sh("trap 'echo usr1' USR1; echo up; while :; do sleep 0.05 >/dev/null; done")})
	eventually(t, "it is up", func() bool { return text(records(t, r.logPath("p")), "") == "up\n" })
	pid := r.keeperPID()
	r.c.Close()
	syscall.Kill(pid, syscall.SIGKILL)
	time.Sleep(200 * time.Millisecond)
	r.open()
	syscall.Kill(st.PID, syscall.SIGUSR1)
	eventually(t, "its output is logged again", func() bool { return text(records(t, r.logPath("p")), "") == "up\nusr1\n" })
	all, err := r.c.List(r.ctx())
	if err != nil || len(all) != 1 || !all[0].Adopted || !all[0].Running || all[0].PID != st.PID {
		t.Errorf("%+v %v", all, err)
	}
}

// childClient is an engine that is killed: it launches processes, notes each, and notes and
// acknowledges each exit.
func childClient(args []string) {
	root, from := args[0], args[1]
	n, _ := strconv.Atoi(from)
	ctx := context.Background()
	c, err := Open(ctx, StartConfig{ExecRoot: root, Binary: os.Args[0], NoSystemd: true})
	if err != nil {
		fmt.Println("error", err)
		os.Exit(1)
	}
	var mu sync.Mutex
	say := func(format string, a ...any) {
		mu.Lock()
		fmt.Fprintf(os.Stdout, format, a...)
		mu.Unlock()
	}
	go func() {
		for x := range c.Exits() {
			say("exit %s %d %v\n", x.ID, x.Code, x.Unknown)
			c.Ack(ctx, x.ID, x.Proc)
		}
	}()
	for ; ; n++ {
		id := strconv.Itoa(n)
		say("want %s\n", id)
		if _, err := c.Launch(ctx, Launch{ID: id, Program: sh("exit " + strconv.Itoa(n%200))}); err != nil {
			say("error %v\n", err)
			os.Exit(1)
		}
		say("launched %s\n", id)
	}
}

// TestClientKilled kills the client at random moments; every process that it launched is told to it
// or to a later one, with the right code.
func TestClientKilled(t *testing.T) {
	rounds, rnd := soak(t, 12)
	r := bareRig(t)
	launched, exits := map[string]bool{}, map[string]int{}
	next := 0
	for range rounds {
		cmd := exec.Command(self(t), "child-client", r.root, strconv.Itoa(next))
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		cmd.Stderr = os.Stderr
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		kill := time.AfterFunc(time.Duration(20+rnd.IntN(150))*time.Millisecond, func() { cmd.Process.Kill() })
		for lines.Scan() {
			f := strings.Fields(lines.Text())
			switch {
			case len(f) == 2 && f[0] == "want":
				n, _ := strconv.Atoi(f[1])
				next = max(next, n+1)
			case len(f) == 2 && f[0] == "launched":
				launched[f[1]] = true
			case len(f) == 4 && f[0] == "exit":
				exits[f[1]], _ = strconv.Atoi(f[2])
			case f[0] == "error":
				t.Errorf("client: %s", lines.Text())
			}
		}
		kill.Stop()
		cmd.Wait()
	}
	r.open()
	eventually(t, "all have ended", func() bool {
		info, err := r.c.Info(r.ctx())
		return err == nil && info.Running+info.Launching == 0
	})
	for {
		select {
		case x := <-r.c.Exits():
			exits[x.ID] = x.Code
			r.c.Ack(r.ctx(), x.ID, x.Proc)
			continue
		case <-time.After(300 * time.Millisecond):
		}
		break
	}
	for id := range launched {
		n, _ := strconv.Atoi(id)
		code, ok := exits[id]
		if !ok || code != n%200 {
			t.Errorf("process %s: exit %d, known %v", id, code, ok)
		}
	}
	t.Logf("%d launched", len(launched))
}

// TestUpgrade replaces the keeper in place while processes write, a terminal is used, a slow client
// lags behind and exits happen.
func TestUpgrade(t *testing.T) {
	rounds, rnd := soak(t, 8)
	r := newRig(t)
	pid := r.keeperPID()
	observer, err := Dial(r.ctx(), r.root)
	if err != nil {
		t.Fatal(err)
	}
	defer observer.Close()
	f, err := os.Open("/dev/null")
	if err != nil {
		t.Fatal(err)
	}
	if err := r.c.Park(r.ctx(), "null", f); err != nil {
		t.Fatal(err)
	}
	f.Close()
	r.launch(Launch{ID: "chatty", Log: r.logCfg("chatty"), Program: program(self(t), "child-count", "0", "0")})
	fr := r.launch(Launch{ID: "framed", Log: r.logCfg("framed"), Program: program(self(t), "child-count", "0", "100", "both"),
		Attach: []AttachRequest{{Stdout: true, Stderr: true, Framed: true}}})
	framed := make(chan []byte)
	go func() { b, _ := io.ReadAll(fr.Attached[0]); framed <- b }()
	slow := r.launch(Launch{ID: "slow", Log: r.logCfg("slow"), Program: program(self(t), "child-count", "100000", "0"),
		Attach: []AttachRequest{{Stdout: true}}})
	sh1 := r.launch(Launch{ID: "shell", Terminal: true, Stdin: true, Program: sh("stty -echo; exec /bin/sh -i"),
		Attach: []AttachRequest{{Stdin: true, Stdout: true}}})
	shell := bufio.NewReader(sh1.Attached[0])
	cat := r.launch(Launch{ID: "cat", Stdin: true, StdinOnce: true, Program: program("/bin/cat"), Attach: []AttachRequest{{Stdin: true, Stdout: true}}})

	for i := range rounds {
		randomWait(rnd, 40*time.Millisecond)
		id := fmt.Sprint("short", i)
		r.launch(Launch{ID: id, Program: sh("sleep 0.0" + strconv.Itoa(rnd.IntN(5)) + "; exit " + strconv.Itoa(i%100))})
		// Launches while it is being replaced wait, and are made by the new one.
		during := make(chan error)
		go func() {
			_, err := r.c.Launch(r.ctx(), Launch{ID: id + "d", Program: sh("exit 9")})
			during <- err
		}()
		if err := r.c.Upgrade(r.ctx(), self(t)); err != nil {
			t.Fatal(err)
		}
		if err := <-during; err != nil {
			t.Fatalf("a launch during the upgrade: %v", err)
		}
		info, err := observer.Info(r.ctx())
		if err != nil || info.PID != pid || info.Upgrades != i+1 || info.Parked != 1 {
			t.Fatalf("%+v %v", info, err)
		}
		fmt.Fprintf(sh1.Attached[0], "echo r%d.$((%d*7))\n", i, i)
		want := fmt.Sprintf("r%d.%d", i, i*7)
		for {
			line, err := shell.ReadString('\n')
			if err != nil {
				t.Fatal(err)
			}
			if strings.Contains(line, want) {
				break
			}
		}
		codes := map[string]int{}
		for len(codes) < 2 {
			x := r.exit()
			codes[x.ID] = x.Code
			r.c.Ack(r.ctx(), x.ID, x.Proc)
		}
		if codes[id] != i%100 || codes[id+"d"] != 9 {
			t.Errorf("exits %v", codes)
		}
	}
	for _, bad := range []string{"/bin/false", "/no/such/keeper", r.root} {
		if err := r.c.Upgrade(r.ctx(), bad); !fault.Is(err, fault.Invalid) {
			t.Errorf("upgrade to %s: %v", bad, err)
		}
	}
	io.WriteString(cat.Attached[0], "meow")
	cat.Attached[0].CloseWrite()
	if got := readAll(t, cat.Attached[0]); got != "meow" {
		t.Errorf("cat gave %q", got)
	}
	if x := r.exitOf("cat", ""); x.Code != 0 {
		t.Errorf("%+v", x)
	}
	if got := readAll(t, slow.Attached[0]); got != text(records(t, r.logPath("slow")), "") || strings.Count(got, "\n") != 100000 {
		t.Errorf("the slow client got %d lines", strings.Count(got, "\n"))
	}
	r.exitOf("slow", "")
	for _, id := range []string{"chatty", "framed"} {
		if err := r.c.Signal(r.ctx(), id, "", 15); err != nil {
			t.Fatal(err)
		}
		if x := r.exitOf(id, ""); x.Unknown || x.Code != 143 {
			t.Errorf("%+v", x)
		}
	}
	got := deframe(t, <-framed)
	all := records(t, r.logPath("framed"))
	if got[1] != text(all, "stdout") || got[2] != text(all, "stderr") {
		t.Error("the framed client got something else than the log")
	}
	all = records(t, r.logPath("chatty"))
	if !strings.HasSuffix(all[len(all)-1].Log, "\n") {
		all = all[:len(all)-1]
	}
	t.Logf("%d lines", countLines(t, all, false))
}

// TestFailpoints kills the keeper at every place where that would hurt if the order of things were
// wrong. Whoever is to be there when it happens waits for it, however slow the machine is.
func TestFailpoints(t *testing.T) {
	_, rnd := soak(t, 1)
	for _, point := range []string{
		"taking", "read", "taken", "wrote", "logged", "sent", "applied", "rotating", "renamed", "rotated",
		"journalled", "ended", "journalled-exit", "finished",
	} {
		t.Run(point, func(t *testing.T) {
			n := 1 + rnd.IntN(40)
			switch point {
			case "rotating", "renamed", "rotated":
				n = 1 + rnd.IntN(5)
			case "journalled", "ended", "journalled-exit", "finished":
				// Not the launch of the one that writes: nobody holds its pipes yet, and its first line
				// would end it. That window, from clone to insurance, stays open.
				n = 1 + rnd.IntN(3)
			}
			t.Setenv(failpoint.Env, fmt.Sprintf("keeper/%s=kill:%d", point, n))
			t.Log(os.Getenv(failpoint.Env))
			r := newRig(t)
			os.Unsetenv(failpoint.Env) // for its successor
			pid := r.keeperPID()
			log := r.logCfg("a")
			log.MaxSize, log.MaxFiles = 3000, 500
			if rnd.IntN(2) == 0 {
				log.Format = "local"
			}
			for i := range 3 {
				// They end when all are launched: a launch that is cut off is another test.
				r.launch(Launch{ID: fmt.Sprint("short", i), Program: sh("while [ ! -e " + r.root + "/go ]; do sleep 0.01; done; exit 4")})
			}
			st := r.launch(Launch{ID: "a", Log: log, Program: program(self(t), "child-count", "0", "200", "both", r.root+"/stop"),
				Attach: []AttachRequest{{Stdout: true, Stderr: true, Framed: true}}})
			all := make(chan string, 1)
			go func() { all <- readAll(t, st.Attached[0]) }()
			os.WriteFile(r.root+"/go", nil, 0o600)
			eventually(t, "it was killed", func() bool { return r.keeperPID() != pid })
			os.WriteFile(r.root+"/stop", nil, 0o600)
			got := deframe(t, []byte(<-all))
			codes := map[string]Exit{}
			for len(codes) < 4 {
				x := r.exit()
				codes[x.ID] = x
			}
			r.checkAdopted(codes["a"], 0)
			for i := range 3 {
				r.checkAdopted(codes[fmt.Sprint("short", i)], 4)
			}
			r.checkLog(log, got[1], got[2], r.number("stop"))
		})
	}
}

// number reads what a child wrote into a file.
func (r *rig) number(file string) int {
	r.t.Helper()
	b, err := os.ReadFile(r.root + "/" + file)
	if err != nil {
		r.t.Fatal(err)
	}
	n, err := strconv.Atoi(string(b))
	if err != nil {
		r.t.Fatal(err)
	}
	return n
}

// checkLog compares a log that rotates with what a client got, and counts its lines.
func (r *rig) checkLog(log LogConfig, stdout, stderr string, lines int) {
	t := r.t.(*testing.T)
	t.Helper()
	var all []record
	for i := log.MaxFiles - 1; i >= 0; i-- {
		p := log.Path
		if i > 0 {
			p += "." + strconv.Itoa(i)
		}
		if _, err := os.Stat(p); err == nil {
			all = append(all, records(t, p)...)
		}
	}
	if n := countLines(t, all, true); n != lines {
		t.Errorf("%d lines of %d", n, lines)
	}
	if stdout != text(all, "stdout") || stderr != text(all, "stderr") {
		t.Errorf("the client got %d+%d bytes of %d+%d", len(stdout), len(stderr), len(text(all, "stdout")), len(text(all, "stderr")))
	}
}

// TestKilledBetweenExitAndOutput kills the keeper when it has noted an exit and has not read yet what the
// process wrote before: its successor reads it.
func TestKilledBetweenExitAndOutput(t *testing.T) {
	t.Setenv(failpoint.Env, "keeper/journalled-exit=kill")
	r := newRig(t)
	os.Unsetenv(failpoint.Env)
	pid := r.keeperPID()
	// A client that does not read keeps the keeper from reading.
	st := r.launch(Launch{ID: "a", Log: r.logCfg("a"), Program: program(self(t), "child-fill", r.root+"/written"),
		Attach: []AttachRequest{{Stdout: true}}})
	if x := r.exitOf("a", ""); x.Code != 5 || x.Unknown {
		t.Errorf("%+v", x)
	}
	if r.keeperPID() == pid {
		t.Error("it was not killed")
	}
	if n, want := countLines(t, records(t, r.logPath("a")), false), r.number("written"); n != want {
		t.Errorf("%d lines of %d are in the log", n, want)
	}
	got := readAll(t, st.Attached[0]) // cut where it was, since a part was in the keeper
	if all := text(records(t, r.logPath("a")), ""); !strings.HasPrefix(all, got) {
		t.Errorf("the client got something else than the log")
	}
	// Told once and forgotten: the next keeper knows nothing of it.
	if all, err := r.c.List(r.ctx()); err != nil || len(all) != 0 {
		t.Errorf("%+v %v", all, err)
	}
}

// TestKilledWhileAdopting kills the successor, too.
func TestKilledWhileAdopting(t *testing.T) {
	for _, point := range []string{"adopting=kill:2", "adopted=kill"} {
		t.Run(point, func(t *testing.T) {
			r := newRig(t)
			for i := range 3 {
				id := fmt.Sprint("c", i)
				r.launch(Launch{ID: id, Log: r.logCfg(id), Program: program(self(t), "child-count", "0", "0")})
			}
			t.Setenv(failpoint.Env, "keeper/"+point)
			pid := r.keeperPID()
			syscall.Kill(pid, syscall.SIGKILL)
			eventually(t, "a successor was started", func() bool { h := lockHolder(r.root); return h != "" && h != strconv.Itoa(pid) })
			os.Unsetenv(failpoint.Env)
			r.keeperPID()
			for i := range 3 {
				id := fmt.Sprint("c", i)
				if err := r.c.Signal(r.ctx(), id, "", 9); err != nil {
					t.Fatal(err)
				}
				r.checkAdopted(r.exitOf(id, ""), 137)
				all := records(t, r.logPath(id))
				if !strings.HasSuffix(all[len(all)-1].Log, "\n") {
					all = all[:len(all)-1]
				}
				countLines(t, all, false)
			}
		})
	}
}

// TestCutLaunch: a keeper that dies in the middle of a launch leaves a process that it does not know;
// the client says so.
func TestCutLaunch(t *testing.T) {
	t.Setenv(failpoint.Env, "keeper/launched=kill")
	r := newRig(t)
	os.Unsetenv(failpoint.Env)
	_, err := r.c.Launch(r.ctx(), Launch{ID: "a", Program: sh("exit 0")})
	if !fault.Is(err, fault.Unavailable) || !strings.Contains(err.Error(), "cgroup") {
		t.Errorf("%v", err)
	}
	r.launch(Launch{ID: "a", Program: sh("exit 3")})
	if x := r.exitOf("a", ""); x.Code != 3 {
		t.Errorf("%+v", x)
	}
}

// A new keeper has nothing of what was parked in the one that died; whoever parked it is told, and parks it again.
func TestParkedAgain(t *testing.T) {
	r := newRig(t)
	f, err := os.Open("/dev/null")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	told := make(chan error, 4)
	park := func() error { return r.c.Park(r.ctx(), "spare/1", f) }
	r.c.OnNew(func() { told <- park() })
	if err := park(); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		syscall.Kill(r.keeperPID(), syscall.SIGKILL)
		select {
		case err := <-told:
			if err != nil {
				t.Fatal(err)
			}
		case <-time.After(20 * time.Second):
			t.Fatal("nobody was told of the new keeper")
		}
		if names, err := r.c.Parked(r.ctx()); err != nil || len(names) != 1 || names[0] != "spare/1" {
			t.Errorf("parked: %v, %v", names, err)
		}
	}
}
