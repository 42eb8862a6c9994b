package cli

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	controlv1 "gotong/proto/control/v1"
)

type statusJSON struct {
	Sentence   string        `json:"sentence"`
	PeersAlive uint32        `json:"peers_alive"`
	PeersTotal uint32        `json:"peers_total"`
	Backups    []backupJSON  `json:"backups"`
	Giving     givingJSON    `json:"giving"`
	LastDrill  *string       `json:"last_drill"`
	Problems   []problemJSON `json:"problems"`
	Peer       string        `json:"peer"`
	Name       string        `json:"name"`
	Grid       string        `json:"grid"`
	Listen     string        `json:"listen"`
}

type backupJSON struct {
	Set           string    `json:"set"`
	Last          time.Time `json:"last"`
	AgeSeconds    int64     `json:"age_seconds"`
	SurvivesSites int32     `json:"survives_sites"`
	State         string    `json:"state"`
}

type givingJSON struct {
	PledgeBytes uint64 `json:"pledge_bytes"`
	HeldBytes   uint64 `json:"held_bytes"`
	TrashBytes  uint64 `json:"trash_bytes"`
	Slots       uint32 `json:"slots"`
	SlotsBusy   uint32 `json:"slots_busy"`
}

type problemJSON struct {
	What string `json:"what"`
	Why  string `json:"why"`
	Do   string `json:"do"`
}

func (a *app) statusCommand() *cobra.Command {
	c := &cobra.Command{
		Use:     "status",
		Short:   "Say in one sentence how things are, then the details",
		Example: "  gotong status\n  gotong status --json",
		Args:    exactArgs(0),
	}
	c.RunE = func(c *cobra.Command, _ []string) error {
		return a.withPeer(c.Context(), func(ctx context.Context, peer controlv1.ControlClient) error {
			s, err := peer.Status(ctx, &controlv1.StatusRequest{})
			if err != nil {
				return err
			}
			if a.json {
				return a.printJSON(newStatusJSON(s))
			}
			return a.printStatus(s)
		})
	}
	return c
}

func newStatusJSON(s *controlv1.StatusResponse) statusJSON {
	g := s.GetGiving()
	out := statusJSON{
		Sentence: s.Sentence, PeersAlive: s.PeersAlive, PeersTotal: s.PeersTotal,
		Backups: []backupJSON{}, Problems: []problemJSON{},
		Giving: givingJSON{g.GetPledgeBytes(), g.GetHeldBytes(), g.GetTrashBytes(), g.GetSlots(), g.GetSlotsBusy()},
		Peer:   s.Peer, Name: s.Name, Grid: s.Grid, Listen: s.Listen,
	}
	for _, b := range s.Backups {
		out.Backups = append(out.Backups, backupJSON{b.Set, time.Unix(b.LastUnix, 0).UTC(), b.AgeSeconds, b.SurvivesSites, b.State})
	}
	for _, p := range s.Problems {
		out.Problems = append(out.Problems, problemJSON{p.What, p.Why, p.Do})
	}
	return out
}

func (a *app) printStatus(s *controlv1.StatusResponse) error {
	fmt.Fprintln(a.stdout, printable(s.Sentence))
	fmt.Fprintln(a.stdout)
	g := s.GetGiving()
	err := a.table("WHAT\tNOW", func(w io.Writer) {
		fmt.Fprintf(w, "this peer\t%s (%.8s) on %s\n", printable(s.Name), s.Peer, s.Listen)
		fmt.Fprintf(w, "peers\t%d of %d alive\n", s.PeersAlive, s.PeersTotal)
		for _, b := range s.Backups {
			fmt.Fprintf(w, "backup %s\t%s, %s\n", printable(b.Set), printable(b.State), humanize.Time(time.Unix(b.LastUnix, 0)))
		}
		fmt.Fprintf(w, "giving\t%s of %s, %d of %d slots busy\n", bytesText(g.GetHeldBytes()), bytesText(g.GetPledgeBytes()), g.GetSlotsBusy(), g.GetSlots())
	})
	for _, p := range s.Problems {
		fmt.Fprintf(a.stdout, "\n! %s\n  why: %s\n  do:  %s\n", printable(p.What), printable(p.Why), printable(p.Do))
	}
	return err
}
