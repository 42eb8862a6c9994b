package cli

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	controlv1 "gotong/proto/control/v1"
)

// trashJSON is what gotong trash and gotong trash empty answer.
type trashJSON struct {
	Bytes  uint64        `json:"bytes"` // of all; of empty: what was freed
	Owners []trashOfJSON `json:"owners"`
	DryRun bool          `json:"dry_run,omitempty"`
}

type trashOfJSON struct {
	Owner        string   `json:"owner"`
	Peers        []string `json:"peers"`
	Shards       uint64   `json:"shards"`
	Bytes        uint64   `json:"bytes"`
	FirstSeconds int64    `json:"first_seconds"` // that this peer has yet to run until the first is freed
	LastSeconds  int64    `json:"last_seconds"`  // until all are
}

func newTrashJSON(t *controlv1.TrashResponse) trashJSON {
	out := trashJSON{Bytes: t.Bytes, Owners: []trashOfJSON{}}
	for _, o := range t.Owners {
		out.Owners = append(out.Owners, trashOfJSON{o.Owner, append([]string{}, o.Names...), o.Shards, o.Bytes, o.FirstSeconds, o.LastSeconds})
	}
	return out
}

func (a *app) trashCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "trash",
		Short: "Show what owners deleted and this peer still keeps",
		Long: `Trash shows, by owner, what was deleted and is still kept here, and for how long:
each owner's retention floor, counted in the time that this peer runs. Until then
they can get it back: a mistake, or what a thief of their machine deleted. It counts
in what this peer gives and in what the owner may have here. What is kept for jobs is
never in the trash: it is freed when it expires. Shards of which this peer let its
copy go, because another one proves to have the same, are shown with the rest.`,
		Example: "  gotong trash\n  gotong trash empty --dry-run",
		Args:    exactArgs(0),
	}
	c.RunE = func(c *cobra.Command, _ []string) error {
		return a.withPeer(c.Context(), func(ctx context.Context, peer controlv1.ControlClient) error {
			t, err := peer.Trash(ctx, &controlv1.TrashRequest{})
			if err != nil {
				return err
			}
			if a.json {
				return a.printJSON(newTrashJSON(t))
			}
			if len(t.Owners) == 0 {
				fmt.Fprintln(a.stdout, "The trash is empty.")
				return nil
			}
			return a.table("FOR\tIN THE TRASH\tFREED AFTER RUNNING", func(w io.Writer) {
				for _, o := range t.Owners {
					fmt.Fprintf(w, "%s\t%s in %s\t%s\n", printable(trashOwner(o)), bytesText(o.Bytes), countText(o.Shards, "shard", "shards"), freedText(o))
				}
			})
		})
	}
	c.AddCommand(a.trashEmptyCommand())
	return c
}

func (a *app) trashEmptyCommand() *cobra.Command {
	var request controlv1.EmptyTrashRequest
	var yes bool
	c := &cobra.Command{
		Use:   "empty [OWNER]",
		Short: "Free what owners deleted, before its time",
		Long: `Empty removes at once what OWNER deleted and this peer still keeps, or what all
owners did. Nothing of it can be brought back from here: snapshots that were
forgotten by mistake, or by somebody who took the owner's machine over, need it.
Snapshots that are not forgotten lose nothing. It is freed by itself when its time
is over; do this only when the disk is needed now.`,
		Example: "  gotong trash empty cellar --dry-run\n  gotong trash empty cellar --yes",
		Args:    argsBetween(0, 1),
	}
	c.Flags().BoolVar(&request.DryRun, "dry-run", false, "say what would be freed")
	c.Flags().BoolVar(&yes, "yes", false, "do not ask")
	c.RunE = func(c *cobra.Command, args []string) error {
		request.Owner = strings.Join(args, "")
		return a.withPeer(c.Context(), func(ctx context.Context, peer controlv1.ControlClient) error {
			ctx, cancel := context.WithTimeout(ctx, dropTimeout)
			defer cancel()
			if !yes && !request.DryRun {
				would, err := peer.EmptyTrash(ctx, &controlv1.EmptyTrashRequest{Owner: request.Owner, DryRun: true})
				if err != nil {
					return err
				}
				question := fmt.Sprintf("Remove %s that %s deleted, for good? If that was a mistake, or a thief, they cannot get it back from here any more.",
					bytesText(would.Bytes), printable(trashOwners(would)))
				if err := a.confirmOrYes(question); err != nil {
					return usageError(c, err)
				}
			}
			freed, err := peer.EmptyTrash(ctx, &request)
			if err != nil {
				return err
			}
			return a.printFreed(freed, request.DryRun)
		})
	}
	return c
}

func (a *app) printFreed(t *controlv1.TrashResponse, dryRun bool) error {
	if a.json {
		out := newTrashJSON(t)
		out.DryRun = dryRun
		return a.printJSON(out)
	}
	verb := "Freed"
	if dryRun {
		verb = "Would free"
	}
	fmt.Fprintf(a.stdout, "%s %s.\n", verb, bytesText(t.Bytes))
	for _, o := range t.Owners {
		fmt.Fprintf(a.stdout, "%s: %s in %s that they deleted, kept for %s more; they cannot get it back from here then.\n",
			printable(trashOwner(o)), bytesText(o.Bytes), countText(o.Shards, "shard", "shards"), freedText(o))
	}
	return nil
}

func trashOwner(o *controlv1.TrashOf) string {
	return heldForName(&controlv1.HeldFor{Owner: o.Owner, Names: o.Names})
}

// trashOwners names all owners of a trash.
func trashOwners(t *controlv1.TrashResponse) string {
	const most = 5
	var names []string
	for _, o := range t.Owners[:min(len(t.Owners), most)] {
		names = append(names, trashOwner(o))
	}
	if more := len(t.Owners) - len(names); more > 0 {
		names = append(names, countText(uint64(more), "other owner", "other owners"))
	}
	if len(names) == 0 {
		return "nobody"
	}
	return strings.Join(names, ", ")
}

// freedText says when the trash of an owner is freed.
func freedText(o *controlv1.TrashOf) string {
	first, last := runText(o.FirstSeconds), runText(o.LastSeconds)
	if first == last {
		return last
	}
	return first + " to " + last
}

// runText is a length of running time in its largest unit.
func runText(seconds int64) string {
	d := time.Duration(seconds) * time.Second
	switch {
	case d >= 48*time.Hour:
		return countText(uint64(d/(24*time.Hour)), "day", "days")
	case d >= time.Hour:
		return countText(uint64(d/time.Hour), "hour", "hours")
	}
	return countText(uint64(d/time.Minute), "minute", "minutes")
}
