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
too, and takes no more of them, until drop --undo. OWNER is an id, its first 8
characters or more, or the name of one of the owner's peers; gotong status shows for
whom how much is kept, and who was given up.

The owner's backups lose the copies that were here, and jobs the shards of their
programs, inputs and outputs; the state of jobs that this peer keeps stays. Other holders make up for them
as soon as they notice, elsewhere and from what they have; if too many drop the same
owner at once, data is lost. To let them look for another place first, lower what
the owner may have with store.owners: [cellar=0B] in the configuration: then nothing
more comes, and nothing is removed. The owner's heads, some kilobytes by which they
find their backups again after losing everything, stay.`,
		Example: "  gotong drop cellar --dry-run\n  gotong drop cellar\n  gotong drop cellar --undo",
		Args:    exactArgs(1),
	}
	c.Flags().BoolVar(&request.DryRun, "dry-run", false, "say what would be removed")
	c.Flags().BoolVar(&request.Undo, "undo", false, "take shards of the owner again; what was removed comes back only as others store it here")
	c.Flags().BoolVar(&yes, "yes", false, "do not ask")
	c.RunE = func(c *cobra.Command, args []string) error {
		request.Owner = args[0]
		return a.withPeer(c.Context(), func(ctx context.Context, peer controlv1.ControlClient) error {
			ctx, cancel := context.WithTimeout(ctx, dropTimeout)
			defer cancel()
			if !yes && !request.DryRun && !request.Undo {
				would, err := peer.DropOwner(ctx, &controlv1.DropOwnerRequest{Owner: request.Owner, DryRun: true})
				if err != nil {
					return err
				}
				question := fmt.Sprintf("Remove %s that this peer keeps for %s, and take no more? Their backups and jobs lose these copies.",
					heldText(would.Dropped), printable(heldForName(would.Dropped)))
				if err := a.confirmOrYes(question); err != nil {
					return usageError(c, err)
				}
			}
			answer, err := peer.DropOwner(ctx, &request)
			if err != nil {
				return err
			}
			return a.printDropped(answer.Dropped, &request)
		})
	}
	return c
}

func (a *app) printDropped(h *controlv1.HeldFor, request *controlv1.DropOwnerRequest) error {
	if a.json {
		return a.printJSON(struct {
			heldForJSON
			DryRun bool `json:"dry_run"`
			Undo   bool `json:"undo"`
		}{newHeldForJSON(h), request.DryRun, request.Undo})
	}
	name := printable(heldForName(h))
	switch {
	case request.Undo && request.DryRun:
		fmt.Fprintf(a.stdout, "Would take shards of %s again.\n", name)
	case request.Undo:
		fmt.Fprintf(a.stdout, "Shards of %s are taken again. What was removed comes back only as others store it here.\n", name)
	case h.Shards == 0 && request.DryRun:
		fmt.Fprintf(a.stdout, "No shards of %s are kept; none would be taken.\n", name)
	case h.Shards == 0:
		fmt.Fprintf(a.stdout, "No shards of %s are kept; none are taken. gotong drop %s --undo takes them again.\n", name, printable(request.Owner))
	case request.DryRun:
		fmt.Fprintf(a.stdout, "Would remove %s of %s, and take no more.\n", heldText(h), name)
		fmt.Fprintln(a.stdout, "Their backups and jobs lose these copies; other holders make up for them elsewhere, from what they have.")
	default:
		fmt.Fprintf(a.stdout, "Removed %s of %s; no more are taken.\n", heldText(h), name)
		fmt.Fprintf(a.stdout, "Other holders make up for it elsewhere as soon as they notice. gotong drop %s --undo takes shards of them again.\n", printable(request.Owner))
	}
	return nil
}
