package cli

import (
	"context"
	"fmt"
	"io"
	"strings"
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
	LastDrill  *drillJSON    `json:"last_drill"`
	Problems   []problemJSON `json:"problems"`
	Peer       string        `json:"peer"`
	Name       string        `json:"name"`
	Grid       string        `json:"grid"`
	Listen     string        `json:"listen"`
	Repaired   string        `json:"repaired,omitempty"` // in words
	Donating   donatingJSON  `json:"donating"`
	Work       []workJSON    `json:"work"`
}

type backupJSON struct {
	Set           string     `json:"set"`
	Last          *time.Time `json:"last"` // null: there is none
	AgeSeconds    int64      `json:"age_seconds"`
	SurvivesSites int32      `json:"survives_sites"`
	State         string     `json:"state"`
	Snapshot      string     `json:"snapshot,omitempty"`
	Skipped       uint64     `json:"skipped"`
	Schedule      string     `json:"schedule,omitempty"`
	Next          *time.Time `json:"next,omitempty"`
	Running       bool       `json:"running"`
	Failed        string     `json:"failed,omitempty"`
}

type givingJSON struct {
	PledgeBytes uint64        `json:"pledge_bytes"`
	HeldBytes   uint64        `json:"held_bytes"`
	TrashBytes  uint64        `json:"trash_bytes"`
	Slots       uint32        `json:"slots"`
	SlotsBusy   uint32        `json:"slots_busy"`
	HeldFor     []heldForJSON `json:"held_for"`
	UpLimit     uint64        `json:"up_limit"` // bytes a second now; 0: none
	DownLimit   uint64        `json:"down_limit"`
}

// heldForJSON is what this peer keeps for one owner.
type heldForJSON struct {
	Owner      string   `json:"owner"`
	Peers      []string `json:"peers"`
	Bytes      uint64   `json:"bytes"`
	TrashBytes uint64   `json:"trash_bytes"`
	Shards     uint64   `json:"shards"`
	LimitBytes *uint64  `json:"limit_bytes"` // null: no limit

	JobBytes uint64 `json:"job_bytes"` // of bytes, what is kept for jobs until it expires

	GivenUp *time.Time `json:"given_up"` // since when nothing is taken of them; null: it is

	KeptJobs  uint64 `json:"kept_jobs"` // whose state is kept, beside bytes
	KeptBytes uint64 `json:"kept_bytes"`
}

type problemJSON struct {
	What string `json:"what"`
	Why  string `json:"why"`
	Do   string `json:"do"`
}

func (a *app) statusCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "status",
		Short: "Say in one sentence how things are, then the details",
		Long: `Status says how safe the newest backup of each set is, what this peer gives and
for whom it holds how much, when the last drill passed, and each problem with what
to do about it. It says whether tasks may run on this machine now, which rule of its
donor (donate.* in the configuration) keeps them from it and by what facts, and what
it did for whom and others for it, in core-hours. It shows what this peer knows and
asks nobody; gotong check asks.`,
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
		Giving: givingJSON{g.GetPledgeBytes(), g.GetHeldBytes(), g.GetTrashBytes(), g.GetSlots(), g.GetSlotsBusy(), []heldForJSON{}, g.GetUpLimit(), g.GetDownLimit()},
		Peer:   s.Peer, Name: s.Name, Grid: s.Grid, Listen: s.Listen, Repaired: s.Repaired,
		LastDrill: newDrillJSON(s.LastDrill),
		Donating:  newDonatingJSON(s.Donating), Work: newWorkJSON(s.Work),
	}
	for _, b := range s.Backups {
		out.Backups = append(out.Backups, backupJSON{b.Set, timeOrNull(b.LastUnix), b.AgeSeconds, b.SurvivesSites, b.State,
			b.Snapshot, b.Skipped, b.Schedule, timeOrNull(b.NextUnix), b.Running, b.Failed})
	}
	for _, h := range g.GetHeldFor() {
		out.Giving.HeldFor = append(out.Giving.HeldFor, newHeldForJSON(h))
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
		if s.Repaired != "" {
			fmt.Fprintf(w, "repair\t%s\n", printable(s.Repaired))
		}
		for _, b := range s.Backups {
			fmt.Fprintf(w, "backup %s\t%s\n", printable(b.Set), printable(backupText(b, time.Now())))
		}
		fmt.Fprintf(w, "drill\t%s\n", printable(drillText(s.LastDrill)))
		fmt.Fprintf(w, "giving\t%s of %s (%s of it trash), %d of %d slots busy\n", bytesText(g.GetHeldBytes()), bytesText(g.GetPledgeBytes()),
			bytesText(g.GetTrashBytes()), g.GetSlotsBusy(), g.GetSlots())
		printDonating(w, s.Donating, time.Now())
		printWork(w, s.Work)
		if g.GetUpLimit() > 0 || g.GetDownLimit() > 0 {
			fmt.Fprintf(w, "network\tup %s, down %s at this hour\n", limitText(g.GetUpLimit()), limitText(g.GetDownLimit()))
		}
		for _, h := range g.GetHeldFor() {
			limit := ""
			if h.GivenUpUnix > 0 {
				limit = ", dropped " + humanize.Time(time.Unix(h.GivenUpUnix, 0)) + ": no more shards are taken"
			} else if h.Limited {
				limit = ", at most " + bytesText(h.LimitBytes)
			}
			fmt.Fprintf(w, "  for %s\t%s%s\n", printable(heldForName(h)), heldText(h), limit)
		}
	})
	for _, p := range s.Problems {
		fmt.Fprintf(a.stdout, "\n! %s\n  why: %s\n  do:  %s\n", printable(p.What), printable(p.Why), printable(p.Do))
	}
	return err
}

// backupText is one backup in a line.
func backupText(b *controlv1.BackupState, now time.Time) string {
	parts := []string{"no snapshot yet"}
	if b.LastUnix > 0 {
		parts = []string{b.State, humanize.RelTime(time.Unix(b.LastUnix, 0), now, "ago", "from now")}
		switch {
		case b.SurvivesSites > 0:
			parts = append(parts, "survives any "+countText(uint64(b.SurvivesSites), "site", "sites")+" lost")
		case b.SurvivesSites == 0 && b.State != "unknown":
			parts = append(parts, "survives the loss of no site")
		}
	}
	switch {
	case b.Running:
		parts = append(parts, "running now")
	case b.NextUnix > now.Unix():
		parts = append(parts, "next in "+strings.TrimSpace(humanize.RelTime(now, time.Unix(b.NextUnix, 0), "", ""))+" ("+b.Schedule+")")
	case b.NextUnix > 0:
		parts = append(parts, "due now ("+b.Schedule+")")
	}
	return strings.Join(parts, ", ")
}

func timeOrNull(unix int64) *time.Time {
	if unix == 0 {
		return nil
	}
	t := time.Unix(unix, 0).UTC()
	return &t
}

func newHeldForJSON(h *controlv1.HeldFor) heldForJSON {
	out := heldForJSON{h.Owner, append([]string{}, h.Names...), h.Bytes, h.TrashBytes, h.Shards, nil, h.JobBytes, timeOrNull(h.GivenUpUnix), h.KeptJobs, h.KeptBytes}
	if h.Limited {
		out.LimitBytes = &h.LimitBytes
	}
	return out
}

func heldForName(h *controlv1.HeldFor) string {
	if len(h.Names) == 0 {
		return "owner " + short(h.Owner)
	}
	return strings.Join(h.Names, ", ")
}

func heldText(h *controlv1.HeldFor) string {
	text := bytesText(h.Bytes) + " in " + countText(h.Shards, "shard", "shards")
	kept := "the state of " + countText(h.KeptJobs, "job", "jobs") + ", " + bytesText(h.KeptBytes)
	if h.Shards == 0 && h.Bytes == 0 && h.KeptJobs > 0 {
		return kept
	}
	if h.Shards == 0 && h.Bytes > 0 {
		text = bytesText(h.Bytes) + " of heads and deletions"
	}
	if h.TrashBytes > 0 {
		text += ", " + bytesText(h.TrashBytes) + " of it trash"
	}
	if h.JobBytes > 0 {
		text += ", " + bytesText(h.JobBytes) + " of it for jobs"
	}
	if h.KeptJobs > 0 {
		text += "; " + kept
	}
	return text
}

// limitText is a limit in bytes a second.
func limitText(limit uint64) string {
	if limit == 0 {
		return "without limit"
	}
	return bytesText(limit) + "/s"
}
