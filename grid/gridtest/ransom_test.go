package gridtest_test

import (
	"strconv"
	"strings"
	"testing"

	"gotong/grid/gridtest"
	"gotong/grid/roster"
)

// TestRansomware: malware with all files and keys of the owner's machine
// publishes thousands of empty heads, deletes everything, litters and tries to
// write over what is there. The phrase and one friend bring back every snapshot.
func TestRansomware(t *testing.T) {
	skipShort(t)
	for _, junk := range []bool{false, true} {
		t.Run("junk="+strconv.FormatBool(junk), func(t *testing.T) {
			gridtest.Run(t, gridtest.ClusterConfig{Peers: 4}, func(t *testing.T, c *gridtest.Cluster) {
				ransom(t, c, junk)
			})
		})
	}
}

func ransom(t *testing.T, c *gridtest.Cluster, junk bool) {
	you := c.Peers[0]
	var texts, ids, dirs []string
	for i := range 3 {
		texts = append(texts, strings.Repeat("state "+strconv.Itoa(i)+" ", 50_000))
		dirs = append(dirs, source(t, texts[i], "same everywhere"))
		s, err := backupOf(t, you, dirs[i])
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, s.Snapshot)
	}
	you.Stop()
	a := breakIn(t, you)
	a.litter(t.Context())
	if a.deleteAll(t.Context()) == 0 {
		t.Error("the attacker deleted nothing: the test proves nothing")
	}
	a.buryHeads(t.Context(), junk)
	if err := a.roster.Remove(a.node, roster.RemoveParams{Owner: a.owner}); err == nil {
		t.Error("the attacker removed the owner")
	}
	c.Wait("the owner's machine is away", func() bool { return c.Peers[1].Alive() == 3 })

	fresh, found, err := c.Recover(you.Phrase, c.Peers[3], nil)
	if err != nil {
		t.Fatal(err)
	}
	if len(found.Vaults) != 1 || found.Vaults[0].Head < 100 {
		t.Errorf("%d vaults", len(found.Vaults))
	}
	c.WaitAlive(4)
	all, err := fresh.AllSnapshots(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if len(all) != len(ids) {
		t.Errorf("%d snapshots, want %d", len(all), len(ids))
	}
	for i, id := range ids {
		target := t.TempDir()
		if _, err := restoreOf(t, fresh, id, target); err != nil {
			t.Errorf("snapshot %d: %v", i, err)
			continue
		}
		wantFile(t, target, dirs[i], "a", texts[i])
		wantFile(t, target, dirs[i], "b", "same everywhere")
	}
	// The vault goes on, and nothing new leans on what was deleted.
	again, err := backupOf(t, fresh, dirs[0])
	if err != nil {
		t.Fatal(err)
	}
	if again.NewBytes < 200_000 {
		t.Errorf("only %d bytes were stored anew: the rest is in the trash", again.NewBytes)
	}
	if n := a.deleteAll(t.Context()); n > 0 {
		t.Errorf("the lost device still deletes: %d times", n)
	}
}
