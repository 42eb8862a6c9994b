package guests_test

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"gotong/tasks/guests"
)

func TestEveryGuestIsAModuleWithSource(t *testing.T) {
	sources, err := filepath.Glob("src/*.c")
	if err != nil || len(sources) == 0 {
		t.Fatalf("sources: %v, %v", sources, err)
	}
	var names []string
	for _, source := range sources {
		names = append(names, strings.TrimSuffix(filepath.Base(source), ".c"))
	}
	slices.Sort(names)
	if got := guests.Names(); !slices.Equal(got, names) {
		t.Fatalf("modules %v, sources %v", got, names)
	}
	for _, name := range names {
		if !bytes.HasPrefix(guests.Module(name), []byte("\x00asm\x01\x00\x00\x00")) {
			t.Errorf("%s is not a WebAssembly module of version 1", name)
		}
	}
}

func TestConstantsNameEveryGuest(t *testing.T) {
	text, err := os.ReadFile("guests.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range guests.Names() {
		if !bytes.Contains(text, []byte(`= "`+name+`"`)) {
			t.Errorf("guest %s has no constant", name)
		}
	}
}
