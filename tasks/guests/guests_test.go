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
	names, modules := stems(t, "src", ".c"), stems(t, "wasm", ".wasm")
	if !slices.Equal(modules, names) {
		t.Fatalf("modules %v, sources %v", modules, names)
	}
	for _, name := range names {
		if !bytes.HasPrefix(guests.Module(name), []byte("\x00asm\x01\x00\x00\x00")) {
			t.Errorf("%s is not a WebAssembly module of version 1", name)
		}
	}
}

// stems returns the files of dir with the ending, without it, sorted.
func stems(t *testing.T, dir, ending string) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*"+ending))
	if err != nil || len(files) == 0 {
		t.Fatalf("%s: %v, %v", dir, files, err)
	}
	for i, file := range files { // Glob sorts them
		files[i] = strings.TrimSuffix(filepath.Base(file), ending)
	}
	return files
}

func TestConstantsNameEveryGuest(t *testing.T) {
	text, err := os.ReadFile("guests.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range stems(t, "wasm", ".wasm") {
		if !bytes.Contains(text, []byte(`= "`+name+`"`)) {
			t.Errorf("guest %s has no constant", name)
		}
	}
}
