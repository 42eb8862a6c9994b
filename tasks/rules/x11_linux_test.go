package rules

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// cookieFile writes a file with one cookie.
func cookieFile(t testing.TB, number string, cookie []byte) string {
	t.Helper()
	b := []byte{1, 0} // family: local
	for _, field := range []string{"a-host", number, "MIT-MAGIC-COOKIE-1", string(cookie)} {
		b = append(binary.BigEndian.AppendUint16(b, uint16(len(field))), field...)
	}
	path := filepath.Join(t.TempDir(), "cookies")
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// startX starts an X server without a screen, which asks for a cookie. The test is
// skipped where there is none, unless REQUIRE_X11 is set.
func startX(t *testing.T) *x11 {
	t.Helper()
	program, err := exec.LookPath("Xvfb")
	if err != nil {
		if os.Getenv("REQUIRE_X11") != "" {
			t.Fatal(err)
		}
		t.Skip("the program Xvfb is not installed")
	}
	cookies := cookieFile(t, "", []byte("0123456789abcdef"))
	says, saysIn, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer says.Close()
	server := exec.Command(program, "-displayfd", "3", "-screen", "0", "64x64x8", "-nolisten", "tcp", "-auth", cookies)
	server.ExtraFiles = []*os.File{saysIn}
	err = server.Start()
	saysIn.Close()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		server.Process.Kill()
		server.Wait()
	})
	number, err := bufio.NewReader(says).ReadString('\n')
	if err != nil {
		t.Fatalf("the X server did not start: %v", err)
	}
	x := &x11{display: ":" + strings.TrimSpace(number), cookies: cookies}
	t.Cleanup(x.close)
	return x
}

// askUntil asks until ok holds, however slow the machine is.
func askUntil(t *testing.T, x *x11, before func(), ok func(stamp) bool) {
	t.Helper()
	var s stamp
	var err error
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		x.err = nil // without the pause after an error
		before()
		if s, err = x.ask(); err == nil && ok(s) {
			return
		}
	}
	t.Fatalf("%+v, %v", s, err)
}

// TestXvfbInput: what a real X server says of its last input.
func TestXvfbInput(t *testing.T) {
	x := startX(t)
	var first time.Time // the earliest estimate is the best
	askUntil(t, x, func() {}, func(s stamp) bool {
		if first.IsZero() || s.at.Before(first) {
			first = s.at
		}
		return time.Since(first) > 300*time.Millisecond
	})
	keys := &x11{display: x.display, cookies: x.cookies}
	defer keys.close()
	var opcode byte
	askUntil(t, keys, func() {}, func(stamp) bool {
		var err error
		opcode, err = keys.extension("XTEST")
		return err == nil
	})
	press := func() {
		for _, kind := range []byte{2, 3} { // pressed, released
			fake := make([]byte, 32)
			fake[0], fake[1] = kind, 38
			if err := keys.request(opcode, 2, fake); err != nil {
				t.Fatal(err)
			}
		}
	}
	askUntil(t, x, press, func(s stamp) bool { return s.at.Sub(first) > 200*time.Millisecond })

	without := &x11{display: x.display, cookies: "/nonexistent"}
	defer without.close()
	if _, err := without.ask(); err == nil || !strings.Contains(err.Error(), "refused") {
		t.Errorf("without the cookie: %v", err)
	}
}

// TestXThatHangs: the rules wait a moment, and then no more for a while.
func TestXThatHangs(t *testing.T) {
	const display = "64999"
	listener, err := net.Listen("unix", "@"+xSockets+display)
	if err != nil {
		t.Skip(err)
	}
	defer listener.Close()
	x := &x11{display: ":" + display, cookies: "/nonexistent"}
	if _, err := x.ask(); err == nil || x.conn != nil {
		t.Fatalf("%v", err)
	}
	failed := x.failed
	if _, err := x.ask(); err == nil || x.failed != failed {
		t.Errorf("it was asked again at once: %v", err)
	}
}

func TestDisplays(t *testing.T) {
	for display, want := range map[string]string{
		":0": "0", ":10.0": "10", "unix:3": "3", ":": "", "": "", "host:0": "", ":-1": "", ":0/../../x": "", ":99999": "", ":x.0": "",
	} {
		if got, err := displayNumber(display); got != want || (err == nil) != (want != "") {
			t.Errorf("%q: %q, %v", display, got, err)
		}
	}
}

func TestCookies(t *testing.T) {
	file, err := os.ReadFile(cookieFile(t, "7", []byte("secret")))
	if err != nil {
		t.Fatal(err)
	}
	for number, want := range map[string]string{"7": "secret", "8": ""} {
		if got := findCookie(bytes.NewReader(file), number, "MIT-MAGIC-COOKIE-1"); string(got) != want {
			t.Errorf("%s: %q", number, got)
		}
	}
	if got := findCookie(bytes.NewReader(file[:len(file)-1]), "7", "MIT-MAGIC-COOKIE-1"); got != nil {
		t.Errorf("cut short: %q", got)
	}
}

// TestLatestInput: auto takes the latest of those that answer, and where an X server
// answers there is a user.
func TestLatestInput(t *testing.T) {
	old, recent := time.Unix(1000, 0), time.Unix(2000, 0)
	answers := func(s stamp, err error) source { return func() (stamp, error) { return s, err } }
	none := answers(stamp{}, fmt.Errorf("does not answer"))
	for name, c := range map[string]struct {
		a, b   source
		at     time.Time
		noUser bool
	}{
		"both":            {answers(stamp{at: old}, nil), answers(stamp{at: recent}, nil), recent, false},
		"one":             {none, answers(stamp{at: old}, nil), old, false},
		"no seat, but X":  {answers(stamp{noUser: true}, nil), answers(stamp{at: old}, nil), old, false},
		"no seat, no X":   {answers(stamp{noUser: true}, nil), none, time.Time{}, true},
		"never used, yet": {answers(stamp{at: old}, nil), answers(stamp{}, nil), old, false},
	} {
		if s, err := latest(c.a, c.b); err != nil || s.noUser != c.noUser || !s.at.Equal(c.at) {
			t.Errorf("%s: %+v, %v", name, s, err)
		}
	}
	if _, err := latest(none, none); err == nil {
		t.Error("nobody answers, and there is no error")
	}
}

func FuzzXServer(f *testing.F) {
	greeting := make([]byte, 40)
	greeting[20] = 1
	f.Add(greeting, append([]byte{1, 0, 1, 0, 0, 0, 0, 0}, make([]byte, 24)...))
	f.Fuzz(func(t *testing.T, greeting, answer []byte) {
		rootWindow(greeting)
		readAnswer(bufio.NewReader(bytes.NewReader(answer)))
		findCookie(bytes.NewReader(answer), "0", "MIT-MAGIC-COOKIE-1")
	})
}
