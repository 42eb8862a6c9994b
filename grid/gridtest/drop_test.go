package gridtest_test

import (
	"testing"
	"time"

	"gotong/grid/gridtest"
	controlv1 "gotong/proto/control/v1"
)

// TestDropLasts: what a donor dropped is placed elsewhere and does not come back,
// after a restart neither, until the donor undoes it.
func TestDropLasts(t *testing.T) {
	skipShort(t)
	gridtest.Run(t, repairing(8, "2+2", nil), func(t *testing.T, c *gridtest.Cluster) {
		owner := c.Peers[0]
		backUp(t, owner)
		waitHealthy(t, c, 4, time.Second)
		donor := c.Peers[1]
		for _, p := range c.Peers[2:] {
			if len(shardsOf(t, p)) > len(shardsOf(t, donor)) {
				donor = p
			}
		}
		drop := func(r *controlv1.DropOwnerRequest) *controlv1.HeldFor {
			t.Helper()
			r.Owner = owner.Name
			held, err := donor.DropOwner(t.Context(), r)
			if err != nil {
				t.Fatal(err)
			}
			return held
		}
		would := drop(&controlv1.DropOwnerRequest{DryRun: true})
		if gone := drop(&controlv1.DropOwnerRequest{}); gone.Shards == 0 || gone.Bytes != would.Bytes {
			t.Fatalf("dropped %v, announced %v", gone, would)
		}
		wantNone := func(when string) {
			t.Helper()
			if kept := shardsOf(t, donor); len(kept) > 0 {
				t.Errorf("%s: %d shards are back", when, len(kept))
			}
		}
		waitHealthy(t, c, 4, repairGrace+time.Minute)
		wantNone("after repair")
		donor.Stop()
		donor.Start()
		c.WaitAlive(8)
		again := backUp(t, owner)
		time.Sleep(10 * repairInterval)
		wantNone("after a restart and another backup")
		drop(&controlv1.DropOwnerRequest{Undo: true})
		for _, p := range c.Peers[1:] {
			if p != donor && len(shardsOf(t, p)) > 0 {
				wipe(t, p)
				break
			}
		}
		c.WaitAlive(8)
		waitHealthy(t, c, 4, repairGrace+time.Minute)
		wantRestored(t, owner, again)
	})
}
