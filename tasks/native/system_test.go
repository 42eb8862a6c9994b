package native

import (
	"strings"
	"testing"
)

func TestRelease(t *testing.T) {
	for text, want := range map[string]string{
		"PRETTY_NAME=\"Debian\"\nID=debian\nVERSION_ID=\"13\"\n": "debian-13",
		"ID='alpine'\r\nVERSION_ID=3.22.1":                       "alpine-3.22.1",
		"ID=arch\nBUILD_ID=rolling\n":                            "arch",
		"VERSION_ID=1\n":                                         "unknown",
		"":                                                       "unknown",
		"ID=A/../b c\nVERSION_ID=$(x)":                           "a..bc-x",
	} {
		if got := parseRelease(text); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
	if parts := strings.Split(Engine(), "/"); len(parts) != 4 || parts[0] != "native" || parts[3] == "" {
		t.Errorf("%q", Engine())
	}
}

func FuzzRelease(f *testing.F) {
	f.Add("ID=debian\nVERSION_ID=\"13\"\n")
	f.Fuzz(func(t *testing.T, text string) {
		if got := parseRelease(text); got == "" || len(got) > 2*maxReleasePart+1 || strings.ContainsAny(got, "/\n\x00 ") {
			t.Errorf("%q", got)
		}
	})
}
