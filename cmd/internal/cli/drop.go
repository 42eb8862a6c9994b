package cli

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	controlv1 "gotong/proto/control/v1"
)

// dropTimeout bounds the removal of what may be many files.
const dropTimeout = time.Hour

func (a *app) dropCommand() *cobra.Command {
	var request controlv1.DropOwnerRequest
	var yes bool
	c := &cobra.Command{
		Use:   "drop OWNER",
		Short: "Give up what this peer keeps for somebody",
		Long: `Drop removes at once all shards that this peer keeps for OWNER, those in the trash
too. OWNER is an id, its first 8 characters or more, or the name of one of the
owner's peers; gotong status shows for whom how much is kept.

The owner's backups lose the copies that were here. Other holders make up for them
as soon as they notice, from what they have; if too many drop the same owner at
once, data is lost. It does not keep the owner from storing here again; a line such
as store.owners: [cellar=0B] in the configuration does.`,
		Example: "  gotong drop cellar --dry-run\n  gotong drop cellar",
		Args:    exactArgs(1),
	}
	c.Flags().BoolVar(&request.DryRun, "dry-run", false, "say what would be removed")
	c.Flags().BoolVar(&yes, "yes", false, "do not ask")
	c.RunE = func(c *cobra.Command, args []string) error {
		request.Owner = args[0]
		return a.withPeer(c.Context(), func(ctx context.Context, peer controlv1.ControlClient) error {
			ctx, cancel := context.WithTimeout(ctx, dropTimeout)
			defer cancel()
			if !yes && !request.DryRun {
				would, err := peer.DropOwner(ctx, &controlv1.DropOwnerRequest{Owner: request.Owner, DryRun: true})
				if err != nil {
					return err
				}
				question := fmt.Sprintf("Remove %s that this peer keeps for %s? Their backups lose these copies.", heldText(would.Dropped), printable(heldForName(would.Dropped)))
				if err := a.confirmOrYes(question); err != nil {
					return usageError(c, err)
				}
			}
			answer, err := peer.DropOwner(ctx, &request)
			if err != nil {
				return err
			}
			return a.printDropped(answer.Dropped, request.DryRun)
		})
	}
	return c
}

func (a *app) printDropped(h *controlv1.HeldFor, dryRun bool) error {
	if a.json {
		return a.printJSON(struct {
			heldForJSON
			DryRun bool `json:"dry_run"`
		}{newHeldForJSON(h), dryRun})
	}
	verb := "Removed"
	if dryRun {
		verb = "Would remove"
	}
	fmt.Fprintf(a.stdout, "%s %s of %s.\n", verb, heldText(h), printable(heldForName(h)))
	if !dryRun {
		fmt.Fprintln(a.stdout, "Other holders make up for it as soon as they notice; the owner may store here again.")
	}
	return nil
}
