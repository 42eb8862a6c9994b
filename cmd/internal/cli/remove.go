package cli

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	controlv1 "gotong/proto/control/v1"
)

func (a *app) removeCommand() *cobra.Command {
	var request controlv1.RemoveRequest
	c := &cobra.Command{
		Use:   "remove PEER",
		Short: "Remove a peer from the grid",
		Long: `Remove cuts a peer off everywhere within seconds, for good. PEER is an id, its
first 8 characters or more, or a name. Admins may remove any peer but those of the
grid's founder; others may remove those whom they invited, and peers of their own
owner. A write-only device removes nobody.

What the peer held for others is rebuilt. When its owner has no other peer, holders
free the owner's data after they have run for 30 days (retention.removed). An owner
whose peers were removed one by one may come back until then with gotong recover; one
who was removed with --owner may not.`,
		Example: "  gotong remove cellar\n  gotong remove --owner cellar --dry-run",
		Args:    exactArgs(1),
	}
	c.Flags().BoolVar(&request.Owner, "owner", false, "remove every peer of that peer's owner")
	c.Flags().BoolVar(&request.DryRun, "dry-run", false, "say what would be removed")
	c.RunE = func(c *cobra.Command, args []string) error {
		request.Peer = args[0]
		return a.withPeer(c.Context(), func(ctx context.Context, peer controlv1.ControlClient) error {
			answer, err := peer.Remove(ctx, &request)
			if err != nil {
				return err
			}
			return a.printRemoved(answer.Removed, request.DryRun)
		})
	}
	return c
}

func (a *app) printRemoved(peers []*controlv1.PeerInfo, dryRun bool) error {
	if a.json {
		return a.printJSON(struct {
			Removed []peerJSON `json:"removed"`
			DryRun  bool       `json:"dry_run"`
		}{newPeersJSON(peers), dryRun})
	}
	verb := "Removed"
	if dryRun {
		verb = "Would remove"
	}
	for _, p := range peers {
		fmt.Fprintf(a.stdout, "%s %s (%s)\n", verb, printable(p.Name), p.Id)
	}
	return nil
}
