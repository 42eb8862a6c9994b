package cli

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	controlv1 "gotong/proto/control/v1"
)

func (a *app) leaveCommand() *cobra.Command {
	var yes, drain bool
	c := &cobra.Command{
		Use:   "leave",
		Short: "Leave the grid for good and stop this peer",
		Long: `Leave tells the grid that this peer will not come back and stops it. What it held
for others counts as lost at once, and they rebuild it; with --drain it is handed
over first, which costs them no redundancy. An interrupted drain has handed over a
part and can be begun again. To be away for a while, just stop the peer instead.

What this peer backed up stays with the holders. When its owner has no other peer,
they free it after they have run for 30 days (retention.removed); until then gotong
recover brings it back.`,
		Example: "  gotong leave --drain\n  gotong leave --yes",
		Args:    exactArgs(0),
	}
	c.Flags().BoolVar(&yes, "yes", false, "do not ask")
	c.Flags().BoolVar(&drain, "drain", false, "hand the shards kept for others over before leaving")
	c.RunE = func(c *cobra.Command, _ []string) error {
		if !yes {
			if err := a.confirm("Leave the grid for good?"); err != nil {
				return usageError(c, err)
			}
		}
		return a.withPeer(c.Context(), func(ctx context.Context, peer controlv1.ControlClient) error {
			if drain {
				if err := a.drain(ctx, peer); err != nil {
					return err
				}
			}
			if _, err := peer.Leave(ctx, &controlv1.LeaveRequest{}); err != nil {
				return err
			}
			if a.json {
				return a.printJSON(struct {
					Left bool `json:"left"`
				}{true})
			}
			fmt.Fprintln(a.stdout, "This peer has left the grid and is stopping.")
			return nil
		})
	}
	return c
}

// drain has the peer hand its shards over, and shows how far it is.
func (a *app) drain(ctx context.Context, peer controlv1.ControlClient) error {
	stream, err := peer.Drain(ctx, &controlv1.DrainRequest{})
	if err != nil {
		return err
	}
	bar := a.startProgress("handing over")
	defer bar.stop()
	var last *controlv1.DrainProgress
	for {
		d, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return err
		}
		last = d
		bar.set(d.Bytes, d.Bytes+d.LeftBytes, "", nil)
		if a.json {
			if err := a.printDrain(d); err != nil {
				return err
			}
		}
	}
	bar.stop()
	if last != nil && !a.json {
		fmt.Fprintf(a.stdout, "Handed over %s, %s.\n", countText(last.Shards, "shard", "shards"), bytesText(last.Bytes))
	}
	return nil
}

func (a *app) printDrain(d *controlv1.DrainProgress) error {
	return a.printJSON(struct {
		Type      string `json:"type"`
		Shards    uint64 `json:"shards"`
		Bytes     uint64 `json:"bytes"`
		Left      uint64 `json:"left"`
		LeftBytes uint64 `json:"left_bytes"`
		Stuck     uint64 `json:"stuck"`
	}{"drain", d.Shards, d.Bytes, d.Left, d.LeftBytes, d.Stuck})
}
