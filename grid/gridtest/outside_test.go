package gridtest_test

import (
	"testing"
	"time"

	"gotong/grid/gridtest"
)

// TestOutside: others tell a peer whether they can dial it, and what their clocks
// show.
func TestOutside(t *testing.T) {
	gridtest.Run(t, gridtest.ClusterConfig{Peers: 3}, func(t *testing.T, c *gridtest.Cluster) {
		p := c.Peers[1]
		for _, closed := range []bool{false, true, false} {
			p.Host.DropInbound(closed)
			time.Sleep(time.Minute)
			views := p.Outside(t.Context()).Views
			if len(views) != 2 {
				t.Fatalf("%d views", len(views))
			}
			for _, v := range views {
				if !v.Dialled || v.Dialable == closed || !v.HasClock || v.ClockAheadMilli < -1000 || v.ClockAheadMilli > 1000 {
					t.Errorf("closed %t: %+v", closed, v)
				}
			}
		}
	})
}
