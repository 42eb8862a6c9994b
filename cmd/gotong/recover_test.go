package main

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

// TestMachineGone: the owner's machine is deleted. The phrase and one address on
// a new one give everything back, and the vault goes on without storing again
// what is there.
func TestMachineGone(t *testing.T) {
	ctx := testContext(t)
	g := newGrid(t)
	you, friends := grow(ctx, t, g, 4)
	source := shortTempDir(t)
	writeTree(t, source, 21, 40, 200_000)
	backup(ctx, t, you, source)
	if err := you.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(you.Home); err != nil {
		t.Fatal(err)
	}
	phrase := filepath.Join(shortTempDir(t), "phrase")
	if err := os.WriteFile(phrase, []byte(you.Phrase+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	var found struct {
		Vaults []struct {
			Vault, Host, Device string
			Snapshots           int
			Head                uint64
			Adopted             bool
		}
	}
	if code, what := failure(t, friends[0].JSON(ctx, nil, "recover", "--phrase-file", phrase)); code != 2 {
		t.Errorf("nobody to ask: exit code %d: %s", code, what)
	}
	wrong := filepath.Join(filepath.Dir(phrase), "wrong")
	if err := os.WriteFile(wrong, []byte(friends[0].Phrase), 0o600); err != nil {
		t.Fatal(err)
	}
	if code, _ := failure(t, you.JSON(ctx, nil, "recover", friends[0].ID+"@"+friends[0].Listen, "--phrase-file", wrong, "--listen", "127.0.0.1:0")); code != 4 {
		t.Errorf("an owner without a vault: exit code %d", code)
	}
	args := []string{"recover", friends[0].ID + "@" + friends[0].Listen, "--phrase-file", phrase, "--name", "fresh", "--listen", "127.0.0.1:0", "--give", "1GB"}
	for _, wait := range []time.Duration{20, 60, 120, 200, 300} { // kill it wherever it is, and again
		cmd := you.Command(ctx, append([]string{args[0], "--json"}, args[1:]...)...)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		<-time.After(wait * time.Millisecond)
		_ = cmd.Process.Kill() // it may have ended
		_ = cmd.Wait()
		if _, err := os.Stat(filepath.Join(you.Home, "peer")); err == nil { // it was through
			if err := os.RemoveAll(you.Home); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := you.JSON(ctx, &found, args...); err != nil {
		t.Fatal(err)
	}
	if len(found.Vaults) != 1 || found.Vaults[0].Snapshots != 1 || !found.Vaults[0].Adopted {
		t.Errorf("found %+v", found)
	}
	if err := you.Start(ctx); err != nil {
		t.Fatal(err)
	}
	if err := g.WaitAlive(ctx, you, 5); err != nil {
		t.Fatal(err)
	}
	sameTree(t, source, restore(ctx, t, you, "latest", source))
	if s := backup(ctx, t, you, source); s.NewBytes > 10_000 {
		t.Errorf("%d bytes were stored again", s.NewBytes)
	}
	if code, _ := failure(t, you.JSON(ctx, nil, args...)); code != 11 {
		t.Errorf("over a running home: exit code %d", code)
	}
}
