package node

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	controlv1 "gotong/proto/control/v1"
)

// TestDamagedHomesSayWhatToDo: a home with a file missing or damaged names the
// file, what it means and the next command.
func TestDamagedHomesSayWhatToDo(t *testing.T) {
	junk := func(path string) error { return os.WriteFile(path, []byte("junk"), 0o600) }
	notADirectory := func(path string) error { return errors.Join(os.RemoveAll(path), junk(path)) }
	for _, c := range []struct {
		file   string
		damage func(path string) error
		next   string
	}{
		{"node.key", junk, "gotong recover"},
		{"node.key", os.Remove, "gotong recover"},
		{"roster", junk, "gotong recover"},
		{"roster", os.Remove, "gotong recover"},
		{"records", junk, "then gotong up"},
		{"invites", notADirectory, "gotong invite again"},
		{"vault/secrets", junk, "gotong recover"},
		{"vault/secrets", os.Remove, "gotong recover"},
	} {
		dir := filepath.Join(t.TempDir(), "home")
		config := DefaultConfig()
		config.Name, config.Listen, config.Discovery.MDNS = "one", "127.0.0.1:0", false
		if _, err := Init(t.Context(), dir, InitParams{Config: config, Save: func(string, Config) error { return nil }}); err != nil {
			t.Fatal(err)
		}
		if err := c.damage(filepath.Join(dir, "peer", c.file)); err != nil {
			t.Fatal(err)
		}
		p, err := Open(dir, Options{Config: config, NoControl: true})
		var f *Failure
		if !errors.As(err, &f) || f.Kind != controlv1.Kind_KIND_CORRUPT || f.Meaning == "" || !strings.Contains(f.Next, c.next) ||
			!strings.Contains(f.What, strings.Split(c.file, "/")[0]) {
			t.Errorf("%s: %+v", c.file, err)
		}
		if err == nil {
			p.Close()
		}
	}
}
