package gridtest_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"gotong/grid/gridtest"
	"gotong/grid/node"
	controlv1 "gotong/proto/control/v1"
)

// TestSetsRunThemselves: a set is backed up by its schedule, older snapshots are
// forgotten by its rules, one that fails is said to, and a peer that was off for
// long catches up once.
func TestSetsRunThemselves(t *testing.T) {
	skipShort(t)
	source := t.TempDir()
	if err := os.WriteFile(filepath.Join(source, "file"), []byte("content"), 0o600); err != nil {
		t.Fatal(err)
	}
	gridtest.Run(t, gridtest.ClusterConfig{Peers: 4, Reconfigure: func(i int, c *node.Config) {
		if i > 0 {
			return
		}
		c.Backup.Sets = map[string]node.SetConfig{
			"good":   {Paths: []string{source}, Every: node.Period(time.Minute), Keep: node.KeepConfig{Last: 2}},
			"broken": {Paths: []string{filepath.Join(source, "missing")}, Every: node.Period(time.Minute)},
			"hand":   {Paths: []string{source}},
		}
	}}, func(t *testing.T, c *gridtest.Cluster) {
		time.Sleep(3 * time.Minute)
		owner := c.Peers[0]
		status := statusOf(t, owner.Peer)
		good, broken, hand := setOf(t, status, "good"), setOf(t, status, "broken"), setOf(t, status, "hand")
		if good.State != "complete" || good.AgeSeconds > 70 || good.SurvivesSites != 2 || good.Schedule != "every 1m" || good.Failed != "" || good.Untidy != "" {
			t.Errorf("good: %+v", good)
		}
		if broken.State != "none" || broken.Failed == "" || broken.NextUnix == 0 {
			t.Errorf("broken: %+v", broken)
		}
		if hand.State != "none" || hand.NextUnix != 0 {
			t.Errorf("hand: %+v", hand)
		}
		if !strings.Contains(status.Sentence, "Backup broken") {
			t.Errorf("sentence %q", status.Sentence)
		}
		if n := forgettable(t, owner.Peer); n != 1 {
			t.Errorf("its rules keep 2, and all but the newest are %d", n)
		}
		before := good.Snapshot
		owner.Stop()
		time.Sleep(10 * time.Minute)
		owner.Start()
		c.WaitAlive(4)
		time.Sleep(30 * time.Second)
		good = setOf(t, statusOf(t, owner.Peer), "good")
		if good.Snapshot == before || good.AgeSeconds > 35 {
			t.Errorf("not caught up: %+v", good)
		}
	})
}

func statusOf(t *testing.T, p *node.Peer) *controlv1.StatusResponse {
	t.Helper()
	status, err := p.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return status
}

func setOf(t *testing.T, status *controlv1.StatusResponse, name string) *controlv1.BackupState {
	t.Helper()
	for _, b := range status.Backups {
		if b.Set == name {
			return b
		}
	}
	t.Fatalf("status does not show set %s", name)
	return nil
}

// forgettable returns how many snapshots there are besides the newest.
func forgettable(t *testing.T, p *node.Peer) uint64 {
	t.Helper()
	answer, err := p.Forget(t.Context(), &controlv1.ForgetRequest{Keep: &controlv1.KeepPolicy{Last: 1}, DryRun: true})
	var failure *node.Failure
	if errors.As(err, &failure) {
		t.Fatalf("%v: %s", err, failure.Meaning)
	}
	if err != nil {
		t.Fatal(err)
	}
	return answer.Forgotten
}
