package rules

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/godbus/dbus/v5"
)

// readTime returns when a program last read from a file.
func readTime(path string) (time.Time, bool) {
	var st syscall.Stat_t
	if err := syscall.Stat(path, &st); err != nil {
		return time.Time{}, false
	}
	return time.Unix(int64(st.Atim.Sec), int64(st.Atim.Nsec)), true
}

// Bits of an input device's capabilities/ev.
const (
	evRelative = 1 << 0x02 // a mouse
	evAbsolute = 1 << 0x03 // a touch pad or screen
	evRepeat   = 1 << 0x14 // a keyboard
)

// hasInputDevice reports whether a keyboard, mouse or touch screen is attached. A
// power button is an input device for the kernel too, but not for people.
func hasInputDevice(sysfs string) (bool, error) {
	devices, err := os.ReadDir(filepath.Join(sysfs, "class", "input"))
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	for _, d := range devices {
		if !strings.HasPrefix(d.Name(), "event") {
			continue
		}
		text := readAttribute(filepath.Join(sysfs, "class", "input", d.Name(), "device", "capabilities", "ev"))
		if ev, err := strconv.ParseUint(text, 16, 64); err == nil && ev&(evRelative|evAbsolute|evRepeat) != 0 {
			return true, nil
		}
	}
	return false, nil
}

// logind asks the login manager over the system bus.
type logind struct {
	bus *dbus.Conn
}

const (
	logindName = "org.freedesktop.login1"
	logindPath = "/org/freedesktop/login1"
	logindCall = "org.freedesktop.login1.Manager."
	busWait    = 2 * time.Second
)

func (l *logind) manager() (dbus.BusObject, error) {
	if l.bus == nil || !l.bus.Connected() {
		l.close()
		bus, err := dbus.ConnectSystemBus()
		if err != nil {
			return nil, fmt.Errorf("no system bus: %w", err)
		}
		l.bus = bus
	}
	return l.bus.Object(logindName, logindPath), nil
}

func (l *logind) close() {
	if l.bus != nil {
		l.bus.Close()
		l.bus = nil
	}
}

// seats counts the seats: places with a screen or a keyboard where somebody can
// sit.
func (l *logind) seats() (int, error) {
	manager, err := l.manager()
	if err != nil {
		return 0, err
	}
	var list []struct {
		Name string
		Path dbus.ObjectPath
	}
	call := manager.Call(logindCall+"ListSeats", 0)
	if err := call.Store(&list); err != nil {
		return 0, fmt.Errorf("logind: %w", err)
	}
	return len(list), nil
}

// ask is a source.
func (l *logind) ask() (stamp, error) {
	s := stamp{source: "logind"}
	manager, err := l.manager()
	if err != nil {
		return s, err
	}
	idle, err := manager.GetProperty(logindCall + "IdleHint")
	if err != nil {
		return s, fmt.Errorf("logind: %w", err)
	}
	since, err := manager.GetProperty(logindCall + "IdleSinceHint")
	if err != nil {
		return s, fmt.Errorf("logind: %w", err)
	}
	hint, okHint := idle.Value().(bool)
	micros, okSince := since.Value().(uint64)
	if !okHint || !okSince {
		return s, errors.New("logind: an answer of another kind")
	}
	return logindStamp(hint, micros, time.Now()), nil
}

// logindStamp reads logind's hints: a session that is not idle has its user
// there now.
func logindStamp(idle bool, sinceMicros uint64, now time.Time) stamp {
	s := stamp{source: "logind", at: now}
	switch {
	case idle && sinceMicros == 0:
		s.at = time.Time{}
	case idle:
		s.at = time.UnixMicro(int64(min(sinceMicros, 1<<62)))
	}
	return s
}

// openSource returns the source of a name, and what ends it.
func openSource(name string, cfg SensorsConfig) (source, func()) {
	bus, screen := &logind{}, localX11()
	switch name {
	case SourceLogind:
		return bus.ask, bus.close
	case SourceTTY:
		return ttySource(cfg.Dev), func() {}
	case SourceX11:
		return screen.ask, screen.close
	case SourceAuto:
		machine := machineSource(cfg, bus)
		if screen.display == "" {
			return machine, bus.close
		}
		return func() (stamp, error) { return latest(machine, screen.ask) }, func() { bus.close(); screen.close() }
	}
	return fileSource(name), func() {}
}

// latest returns the later input of the two, as far as they answer. Where a screen
// answers there is a user, whatever the machine says of seats.
func latest(machine, screen source) (stamp, error) {
	m, machineErr := machine()
	s, screenErr := screen()
	switch {
	case screenErr != nil && machineErr != nil:
		return m, fmt.Errorf("%w; %w", machineErr, screenErr)
	case screenErr == nil && (machineErr != nil || m.noUser || s.at.After(m.at)):
		return s, nil
	}
	return m, nil
}

// machineSource asks logind, else looks at the terminals; a machine without a seat
// or without any input device has no user.
func machineSource(cfg SensorsConfig, bus *logind) source {
	terminals := ttySource(cfg.Dev)
	var lastBus time.Time
	var busErr error
	return func() (stamp, error) {
		devices, err := hasInputDevice(cfg.Sys)
		if err == nil && !devices {
			return stamp{noUser: true, source: "no input device"}, nil
		}
		if busErr == nil || time.Since(lastBus) > busRetry {
			var s stamp
			if s, busErr = askBus(bus); busErr == nil {
				return s, nil
			}
			lastBus = time.Now()
		}
		s, err := terminals()
		if err != nil {
			err = fmt.Errorf("%w; %w", busErr, err)
		}
		return s, err
	}
}

// busRetry is how long the login manager is left alone after it did not answer.
const busRetry = time.Minute

func askBus(bus *logind) (stamp, error) {
	seats, err := bus.seats()
	if err != nil {
		return stamp{}, err
	}
	if seats == 0 {
		return stamp{noUser: true, source: "logind: no seat"}, nil
	}
	return bus.ask()
}
