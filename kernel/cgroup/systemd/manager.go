package systemd

import (
	"context"
	"errors"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/godbus/dbus/v5"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"berth/base/fault"
	"berth/kernel/cgroup"
)

// Manager is a connection to a systemd: the machine's, or an ordinary user's own. It may be used from
// several goroutines; Close ends it.
type Manager struct {
	conn    *dbus.Conn
	object  dbus.BusObject
	user    bool
	version int
	root    string // systemd's own cgroup, below which its units' paths begin
}

const (
	service   = "org.freedesktop.systemd1"
	managerIF = service + ".Manager"
	objects   = "/org/freedesktop/systemd1"
	// jobTimeout is how long systemd may take for one thing when the caller's context has no end.
	jobTimeout = 30 * time.Second
)

// Running reports whether systemd runs this machine, as sd_booted(3) does.
func Running() bool {
	st, err := os.Lstat("/run/systemd/system")
	return err == nil && st.IsDir()
}

// Connect connects to the machine's systemd, or with user to the user's own. As root it goes to systemd's
// own socket first, which works without a message bus.
func Connect(ctx context.Context, user bool) (*Manager, error) {
	ctx, cancel := limited(ctx)
	defer cancel()
	var tried []string
	for _, address := range addresses(user) {
		m, err := connect(ctx, address, user)
		if err == nil {
			return m, nil
		}
		tried = append(tried, address.String()+": "+err.Error())
	}
	hint := "run systemd, or use the cgroupfs driver"
	if user {
		hint = "log in through systemd (loginctl enable-linger), or set DBUS_SESSION_BUS_ADDRESS"
	}
	return nil, fault.New(fault.Unavailable, "cannot talk to systemd (%s): %s", strings.Join(tried, "; "), hint)
}

// address is a place where a systemd may answer.
type address struct {
	at  string // as D-Bus writes it
	bus bool   // a message bus, which wants a greeting
}

func (a address) String() string { return strings.TrimPrefix(a.at, "unix:path=") }

func addresses(user bool) []address {
	if !user {
		list := []address{{"unix:path=/run/systemd/private", false}}
		bus := os.Getenv("DBUS_SYSTEM_BUS_ADDRESS")
		if bus == "" {
			bus = "unix:path=/run/dbus/system_bus_socket"
		}
		return append(list, address{bus, true})
	}
	var list []address
	runtime := os.Getenv("XDG_RUNTIME_DIR")
	if runtime == "" {
		runtime = "/run/user/" + strconv.Itoa(os.Getuid())
	}
	list = append(list, address{"unix:path=" + dbus.EscapeBusAddressValue(runtime+"/systemd/private"), false})
	if bus := os.Getenv("DBUS_SESSION_BUS_ADDRESS"); bus != "" {
		list = append(list, address{bus, true})
	}
	return append(list, address{"unix:path=" + dbus.EscapeBusAddressValue(runtime+"/bus"), true})
}

func connect(ctx context.Context, a address, user bool) (*Manager, error) {
	conn, err := dbus.Dial(a.at)
	if err != nil {
		return nil, err
	}
	m := &Manager{conn: conn, user: user, object: conn.Object(service, objects)}
	if err := m.begin(ctx, a); err != nil {
		conn.Close()
		return nil, err
	}
	return m, nil
}

func (m *Manager) begin(ctx context.Context, a address) error {
	if err := m.conn.Auth([]dbus.Auth{dbus.AuthExternal(strconv.Itoa(os.Getuid()))}); err != nil {
		return err
	}
	if a.bus {
		if err := m.conn.Hello(); err != nil {
			return err
		}
		if err := m.conn.AddMatchSignalContext(ctx, dbus.WithMatchInterface(managerIF), dbus.WithMatchMember("JobRemoved")); err != nil {
			return err
		}
	}
	if err := m.object.CallWithContext(ctx, managerIF+".Subscribe", 0).Err; err != nil && !isName(err, service+".AlreadySubscribed") {
		return err
	}
	text, err := m.managerProperty(ctx, "Version")
	if err != nil {
		return err
	}
	m.version = parseVersion(text)
	if m.root, err = m.managerProperty(ctx, "ControlGroup"); err != nil {
		return err
	}
	m.root = strings.TrimSuffix(strings.TrimSuffix(m.root, "/init.scope"), "/")
	return nil
}

func (m *Manager) managerProperty(ctx context.Context, name string) (string, error) {
	return m.stringProperty(ctx, m.object, managerIF, name)
}

func (m *Manager) stringProperty(ctx context.Context, o dbus.BusObject, iface, name string) (string, error) {
	var v dbus.Variant
	if err := o.CallWithContext(ctx, "org.freedesktop.DBus.Properties.Get", 0, iface, name).Store(&v); err != nil {
		return "", err
	}
	s, _ := v.Value().(string)
	return s, nil
}

// GoingDown reports whether this systemd is ending everything that it runs: the machine shuts down, or the user's manager ends.
func (m *Manager) GoingDown(ctx context.Context) (bool, error) {
	state, err := m.managerProperty(ctx, "SystemState")
	if err != nil {
		return false, fault.Wrap(fault.Unavailable, err, "asking systemd for its state")
	}
	return state == "stopping", nil
}

// Close ends the connection.
func (m *Manager) Close() error { return m.conn.Close() }

// Version is systemd's: 252. 0 when it does not tell.
func (m *Manager) Version() int { return m.version }

// Path gives a unit's cgroup, absolute in the hierarchies: the path to open it with.
func (m *Manager) Path(u Unit) string { return m.root + u.Path() }

// parseVersion reads "252.38-1~deb12u1", "v245", "systemd 239 (239-58.el8)".
func parseVersion(s string) int {
	s = strings.TrimPrefix(strings.TrimPrefix(s, "systemd "), "v")
	end := 0
	for end < len(s) && s[end] >= '0' && s[end] <= '9' {
		end++
	}
	n, err := strconv.Atoi(s[:end])
	if err != nil {
		return 0
	}
	return n
}

// Start starts the unit and waits until systemd has made it. A scope begins around the process, which
// must exist. A left-over failed unit of the same name is forgotten first; a running one is Conflict.
func (m *Manager) Start(ctx context.Context, u Unit, pid int, properties []Property) error {
	err := m.start(ctx, u, pid, properties)
	if isName(err, service+".UnitExists") && m.ResetFailed(ctx, u) == nil {
		err = m.start(ctx, u, pid, properties)
	}
	if isName(err, service+".UnitExists") {
		if u.IsSlice() {
			return nil // slices are shared
		}
		return fault.Wrap(fault.Conflict, err, "systemd unit %s is in use: choose another container name, or systemctl stop %s", u.Name, u.Name)
	}
	return fault.In(err, "start systemd unit %s", u.Name)
}

func (m *Manager) start(ctx context.Context, u Unit, pid int, properties []Property) error {
	properties = append(unitProperties(u, "Berth container "+u.Name, pid), properties...)
	type auxiliary struct { // a(sa(sv)), always empty
		Name       string
		Properties []Property
	}
	return m.job(ctx, "StartTransientUnit", u.Name, "replace", properties, []auxiliary{})
}

// Stop stops the unit: systemd kills what is left in it and removes the cgroup. A unit that is not there
// is stopped already.
func (m *Manager) Stop(ctx context.Context, u Unit) error {
	err := m.job(ctx, "StopUnit", u.Name, "replace")
	if isName(err, service+".NoSuchUnit") {
		return nil
	}
	_ = m.ResetFailed(ctx, u) // a unit that failed would stay in its list
	return fault.In(err, "stop systemd unit %s", u.Name)
}

// ResetFailed makes systemd forget that the unit failed.
func (m *Manager) ResetFailed(ctx context.Context, u Unit) error {
	ctx, cancel := limited(ctx)
	defer cancel()
	return m.object.CallWithContext(ctx, managerIF+".ResetFailedUnit", 0, u.Name).Err
}

// Set changes properties of a running unit until it stops.
func (m *Manager) Set(ctx context.Context, u Unit, properties []Property) error {
	if len(properties) == 0 {
		return nil
	}
	ctx, cancel := limited(ctx)
	defer cancel()
	const runtime = true // forgotten at reboot
	err := m.object.CallWithContext(ctx, managerIF+".SetUnitProperties", 0, u.Name, runtime, properties).Err
	return fault.Wrap(fault.Internal, err, "change systemd unit %s", u.Name)
}

// job calls a method that answers with a job, and waits until the job is done.
func (m *Manager) job(ctx context.Context, method string, args ...any) error {
	ctx, cancel := limited(ctx)
	defer cancel()
	// Begin to listen before the call: the job may be done before its number is known. The buffer holds
	// what other units' jobs send meanwhile; a library goroutine drops nothing but waits.
	signals := make(chan *dbus.Signal, 64)
	m.conn.Signal(signals)
	defer func() {
		m.conn.RemoveSignal(signals)
	}()
	var job dbus.ObjectPath
	if err := m.object.CallWithContext(ctx, managerIF+"."+method, 0, args...).Store(&job); err != nil {
		return err
	}
	for {
		select {
		case <-ctx.Done():
			return fault.Wrap(fault.Deadline, ctx.Err(), "systemd has not done the job %s yet", job)
		case s, ok := <-signals:
			if !ok {
				return fault.New(fault.Unavailable, "the connection to systemd ended")
			}
			if result, mine := jobResult(s, job); mine {
				if result == "done" {
					return nil
				}
				return fault.New(fault.Internal, "systemd's job ended as %q: see journalctl -xe", result)
			}
		}
	}
}

// limited gives the context an end where it has none: a call to a systemd that hangs must not hang too.
func limited(ctx context.Context) (context.Context, context.CancelFunc) {
	if _, ok := ctx.Deadline(); ok {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, jobTimeout)
}

// jobResult reads JobRemoved(number u, job o, unit s, result s).
func jobResult(s *dbus.Signal, job dbus.ObjectPath) (result string, mine bool) {
	if s.Name != managerIF+".JobRemoved" || len(s.Body) < 4 {
		return "", false
	}
	if path, _ := s.Body[1].(dbus.ObjectPath); path != job {
		return "", false
	}
	result, _ = s.Body[3].(string)
	return result, true
}

func isName(err error, name string) bool {
	var e dbus.Error
	return errors.As(err, &e) && e.Name == name
}

// Scope puts a waiting process into a new unit with the limits: systemd makes the cgroup, then the files
// that systemd has no property for are written, and on v1 the hierarchies that systemd leaves alone get
// the process, too. extra are further properties, such as FromAnnotations gives; they win. When a step
// fails the unit is stopped again, which kills the process.
func (m *Manager) Scope(ctx context.Context, l cgroup.Layout, u Unit, pid int, r *specs.LinuxResources, extra []Property) (*cgroup.Cgroup, error) {
	properties, err := Properties(l.Mode, m.version, r)
	if err != nil {
		return nil, err
	}
	setup, err := cgroup.Plan(l, m.Path(u), r)
	if err != nil {
		return nil, err
	}
	if err := m.Start(ctx, u, pid, append(properties, extra...)); err != nil {
		return nil, err
	}
	setup.Shared = true
	c, err := setup.Apply()
	if err == nil && !u.IsSlice() && pid > 0 {
		err = c.Add(pid)
	}
	if err != nil {
		_ = m.Stop(context.WithoutCancel(ctx), u)
		return nil, err
	}
	return c, nil
}

// Update changes the limits of a running unit, in systemd's book and in the files.
func (m *Manager) Update(ctx context.Context, l cgroup.Layout, u Unit, r *specs.LinuxResources) error {
	properties, err := Properties(l.Mode, m.version, r)
	if err != nil {
		return err
	}
	c, err := cgroup.Open(l, m.Path(u))
	if err != nil {
		return err
	}
	if err := m.Set(ctx, u, properties); err != nil {
		return err
	}
	return c.Update(r)
}
