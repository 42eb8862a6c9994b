package gridtest_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"gotong/grid/gridtest"
	"gotong/grid/node"
)

// TestReload: a running peer takes over what its configuration says now, keeps what
// needs a restart, and goes on as it is when it is not valid.
func TestReload(t *testing.T) {
	source := t.TempDir()
	if err := os.WriteFile(filepath.Join(source, "file"), []byte("content"), 0o600); err != nil {
		t.Fatal(err)
	}
	gridtest.Run(t, gridtest.ClusterConfig{Peers: 2}, func(t *testing.T, c *gridtest.Cluster) {
		p, friend := c.Peers[0], c.Peers[1]
		pledge := func() uint64 {
			for _, info := range friend.Peers(t.Context(), false) {
				if info.Id == p.ID.String() {
					return info.PledgeBytes
				}
			}
			return 0
		}
		before := pledge()
		p.Reconfigure(func(c *node.Config) {
			c.Give, c.Listen, c.Tasks.KeepJobs = 5e9, ":7001", 3
			c.Repair.Grace, c.Donate.Idle = time.Hour, time.Minute
			c.Backup.Sets = map[string]node.SetConfig{"docs": {Paths: []string{source}, Every: node.Period(time.Hour)}}
		})
		done, err := p.Reload()
		if err != nil || !slices.Equal(done.Applied, []string{"backup.sets", "donate.idle", "give", "repair.grace"}) ||
			!slices.Equal(done.Restart, []string{"listen", "tasks.keep_jobs"}) {
			t.Errorf("%+v, %v", done, err)
		}
		c.Wait("the friend knows the new pledge", func() bool { return pledge() == 5e9 && before != 5e9 })
		time.Sleep(5 * time.Minute)
		if s := setOf(t, statusOf(t, p.Peer), "docs"); s.Snapshot == "" {
			t.Errorf("the new set was not backed up: %+v", s)
		}
		p.Broken = errors.New("store.give: no such thing")
		var failure *node.Failure
		if done, err := p.Reload(); !errors.As(err, &failure) || !errors.Is(err, p.Broken) || len(done.Applied) > 0 {
			t.Errorf("%+v, %v", done, err)
		}
		p.Broken = nil
		p.Reconfigure(func(c *node.Config) { c.Backup.Sets = nil })
		if done, err := p.Reload(); err != nil || !slices.Equal(done.Applied, []string{"backup.sets"}) || len(done.Restart) != 2 {
			t.Errorf("%+v, %v", done, err)
		}
		for _, b := range statusOf(t, p.Peer).Backups {
			if b.NextUnix != 0 {
				t.Errorf("still scheduled: %+v", b)
			}
		}
	})
}
