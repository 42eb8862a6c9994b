package probes

import (
	"context"
	"os"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"gotong/tasks/sandbox"
)

// TestMain lets the test binary be its own sandbox child.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == sandbox.ChildCommand {
		os.Exit(sandbox.ChildMain(os.Args[2:], os.Stdin, os.Stdout))
	}
	goleak.VerifyTestMain(m)
}

func TestEverythingIsRefused(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	names := make(map[string]bool)
	s, err := Run(context.Background(), Config{}, func(p Probe) {
		if !p.Refused || p.How == "" {
			t.Errorf("%s: refused %t, %s", p.Name, p.Refused, p.How)
		}
		names[p.Name] = true
	})
	if err != nil || !s.Passed() || len(names) != s.Probes || len(s.Layers) == 0 {
		t.Errorf("%d of %d probes were refused, %d names, %d layers: %v", s.Refused, s.Probes, len(names), len(s.Layers), err)
	}
	if left, err := os.ReadDir(os.Getenv("TMPDIR")); err != nil || len(left) != 0 {
		t.Errorf("%v is left (%v)", left, err)
	}
}

func TestNoJudgeIsBlind(t *testing.T) {
	for _, p := range hostile() {
		if refused, how := p.judge(sandbox.Outcome{State: "done", Stdout: []byte("I was everywhere")}, nil); refused || how == "" {
			t.Errorf("%s: a guest that did as it liked counts as refused (%s)", p.name, how)
		}
	}
}

func TestBaitNotices(t *testing.T) {
	for name, touch := range map[string]func(b *bait) error{
		"changed": func(b *bait) error { return os.WriteFile(b.key, []byte("other"), 0o600) },
		"more":    func(b *bait) error { return os.WriteFile(b.data+"/left", nil, 0o600) },
		"gone":    func(b *bait) error { return os.Remove(b.data + "/shard") },
		"mode":    func(b *bait) error { return os.Chmod(b.key, 0o644) },
	} {
		b, err := layBait(t.TempDir() + "/home")
		if err != nil {
			t.Fatal(err)
		}
		if p := b.check(); !p.Refused {
			t.Errorf("untouched: %s", p.How)
		}
		if err := touch(b); err != nil {
			t.Fatal(err)
		}
		if p := b.check(); p.Refused {
			t.Errorf("%s: not noticed", name)
		}
		b.close()
	}
}

func TestCancelled(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	ctx, cancel := context.WithCancel(context.Background())
	_, err := Run(ctx, Config{}, func(p Probe) {
		if strings.HasPrefix(p.Name, "guest:") {
			cancel()
		}
	})
	cancel()
	if err == nil {
		t.Error("no error")
	}
	if left, err := os.ReadDir(os.Getenv("TMPDIR")); err != nil || len(left) != 0 {
		t.Errorf("%v is left (%v)", left, err)
	}
}
