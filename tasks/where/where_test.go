package where

import (
	"errors"
	"strings"
	"testing"
)

var friend = Facts{Peer: "p1", Owner: "bob", Site: "home", Name: "tower", Arch: "amd64", OS: "linux", Memory: 8 << 30, Slots: 4}

func TestHolds(t *testing.T) {
	for text, want := range map[string]bool{
		"":                                     true,
		`arch == "amd64"`:                      true,
		`arch == 'arm64'`:                      false,
		`arch != "arm64" && site != "home"`:    false,
		`site == "x" || name == "tower"`:       true,
		`!(site == "home")`:                    false,
		`not site == "x" and os == "linux"`:    true,
		`owner in ["alice", "bob"]`:            true,
		`!(owner in ["alice"]) && slots > 3`:   true,
		`memory >= 8GiB`:                       true,
		`memory>8GiB`:                          false,
		`memory >= 8GB && memory < 8.1GiB`:     true,
		`slots == 4 && slots != 5 && slots<=4`: true,
		`owner in []`:                          false,
	} {
		e, err := Parse(text)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		if got, why := e.Holds(friend); got != want || !got && why == "" {
			t.Errorf("%s: %v %q", text, got, why)
		}
	}
}

func TestWhy(t *testing.T) {
	e, err := Parse(`arch == "amd64" && !(site == "home" || memory < 4GB)`)
	if err != nil {
		t.Fatal(err)
	}
	if _, why := e.Holds(friend); why != `its site is "home"` {
		t.Error(why)
	}
	if ok, why := e.Holds(Facts{Arch: "amd64"}); ok || why != "it does not say how much memory it has" {
		t.Error(why)
	}
}

func TestFaults(t *testing.T) {
	for text, column := range map[string]int{
		`arch = "amd64"`:                  6,
		`arch == amd64`:                   9,
		`arhc == "amd64"`:                 1,
		`arch == "amd64" site == "x"`:     17,
		`(arch == "amd64"`:                17,
		`arch == "amd64`:                  9,
		`memory >= "8GB"`:                 11,
		`memory >= 8XB`:                   11,
		`arch < "b"`:                      6,
		`owner in "x"`:                    10,
		`owner in ["x" "y"]`:              15,
		`arch == "a" &&`:                  15,
		strings.Repeat("!", 100) + "arch": 66,
	} {
		_, err := Parse(text)
		var fault *Error
		if !errors.As(err, &fault) || fault.Column != column {
			t.Errorf("%s: %v, want column %d", text, err, column)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(`!(a == "b") && memory >= 1.5GiB or owner in ["x", 'y']`)
	f.Add(`arch == "amd64" || slots < 3`)
	f.Fuzz(func(t *testing.T, s string) {
		e, err := Parse(s)
		if err != nil {
			return
		}
		if ok, why := e.Holds(friend); ok != (why == "") {
			t.Errorf("%v %q", ok, why)
		}
	})
}
