package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	controlv1 "gotong/proto/control/v1"
)

// forgetTimeout bounds what has to reach friends.
const forgetTimeout = 10 * time.Minute

func (a *app) forgetCommand() *cobra.Command {
	request := controlv1.ForgetRequest{Keep: &controlv1.KeepPolicy{}}
	var prune bool
	waste := share(defaultWaste)
	c := &cobra.Command{
		Use:   "forget SNAPSHOT… | --keep-…",
		Short: "Take old snapshots out of the vault",
		Long: `Forget removes the named snapshots, or all that no --keep rule keeps. Snapshots
of one set, or else of the same paths, are judged together; counts mean what they
mean in restic: --keep-daily 7 keeps the newest snapshot of each of the last 7 days
that have one. The newest snapshot of each group always stays.

The space is given back by prune (or --prune). Friends keep what is deleted for
the retention floor at least, so forgotten snapshots can be seen by snapshots --all
and restored until then.`,
		Example: "  gotong forget --keep-daily 7 --keep-weekly 5 --keep-monthly 12 --dry-run\n" +
			"  gotong forget --set photos --keep-last 10 --prune\n  gotong forget 3f2a9c",
		Args: minimumArgs(0),
	}
	f, k := c.Flags(), request.Keep
	for _, rule := range []struct {
		name, text string
		to         *int32
	}{
		{"keep-last", "the newest N snapshots", &k.Last}, {"keep-hourly", "the newest of each of N hours", &k.Hourly},
		{"keep-daily", "the newest of each of N days", &k.Daily}, {"keep-weekly", "the newest of each of N weeks", &k.Weekly},
		{"keep-monthly", "the newest of each of N months", &k.Monthly}, {"keep-yearly", "the newest of each of N years", &k.Yearly},
	} {
		f.Var((*keepCount)(rule.to), rule.name, "keep "+rule.text+"; N may be all")
	}
	for _, rule := range []struct {
		name, text string
		to         *string
	}{
		{"keep-within", "all", &k.Within}, {"keep-within-hourly", "one of each hour", &k.WithinHourly},
		{"keep-within-daily", "one of each day", &k.WithinDaily}, {"keep-within-weekly", "one of each week", &k.WithinWeekly},
		{"keep-within-monthly", "one of each month", &k.WithinMonthly}, {"keep-within-yearly", "one of each year", &k.WithinYearly},
	} {
		f.StringVar(rule.to, rule.name, "", "keep "+rule.text+" that is at most so much older than the newest, such as 2y5m7d3h")
	}
	f.StringArrayVar(&k.Tags, "keep-tag", nil, "keep snapshots with this tag; with commas: with all of them; may be repeated")
	f.StringArrayVar(&request.Tags, "tag", nil, "judge only snapshots with this tag; repeated: with all of them")
	f.StringVar(&request.Set, "set", "", "judge only snapshots of this backup set")
	f.StringVar(&request.GroupBy, "group-by", "", "judge together what is the same in: host, set, paths, tags (default host,set)")
	f.BoolVar(&request.DryRun, "dry-run", false, "say what would be forgotten, and change nothing")
	f.BoolVar(&prune, "prune", false, "give the space back at once; see gotong prune")
	f.Var(&waste, "max-waste", "with --prune: share of stored data that may be of no use")
	c.RunE = func(c *cobra.Command, args []string) error {
		request.Snapshots = args
		if len(args) > 0 && hasKeepFlag(f) {
			return usageError(c, errors.New("either name snapshots or say what to keep"))
		}
		if len(args) == 0 && !hasKeepFlag(f) {
			return usageError(c, errors.New("forget what? name snapshots, or say what to keep by --keep-…"))
		}
		return a.withPeer(c.Context(), func(ctx context.Context, peer controlv1.ControlClient) error {
			bounded, cancel := context.WithTimeout(ctx, forgetTimeout)
			answer, err := peer.Forget(bounded, &request)
			cancel()
			if err != nil {
				return err
			}
			if err := a.printForgotten(answer, request.DryRun, prune); err != nil || !prune {
				return err
			}
			return a.prune(ctx, peer, &controlv1.PruneRequest{MaxWaste: float64(waste), DryRun: request.DryRun})
		})
	}
	return c
}

func hasKeepFlag(flags *pflag.FlagSet) (given bool) {
	flags.Visit(func(f *pflag.Flag) { given = given || strings.HasPrefix(f.Name, "keep-") })
	return given
}

// keepCount is a number of snapshots, or all.
type keepCount int32

// Set implements pflag.Value.
func (n *keepCount) Set(text string) error {
	if text == "all" || text == "unlimited" {
		*n = -1
		return nil
	}
	v, err := strconv.ParseInt(text, 10, 32)
	if err != nil || v < 1 {
		return errors.New("want a number from 1 up, or all")
	}
	*n = keepCount(v)
	return nil
}

func (n *keepCount) String() string {
	if *n == 0 {
		return ""
	}
	return strconv.Itoa(int(*n))
}

// Type implements pflag.Value.
func (n *keepCount) Type() string { return "N" }

func (a *app) printForgotten(answer *controlv1.ForgetResponse, dryRun, prune bool) error {
	if a.json {
		return a.printForgottenJSON(answer, dryRun)
	}
	for _, group := range answer.Groups {
		if group.Name != "" {
			fmt.Fprintf(a.stdout, "%s:\n", printable(group.Name))
		}
		err := a.table("SNAPSHOT\tTIME\tSIZE\t\tWHY", func(w io.Writer) {
			for _, d := range group.Decisions {
				what, why := "keep", strings.Join(d.Reasons, ", ")
				if d.Forget {
					what, why = "forget", "-"
				}
				s := d.Snapshot
				fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", short(s.Id), time.Unix(0, s.TimeUnixNano).Format(time.DateTime), bytesText(s.Bytes), what, printable(why))
			}
		})
		if err != nil {
			return err
		}
	}
	count := countText(answer.Forgotten, "snapshot", "snapshots")
	switch {
	case len(answer.Groups) == 0:
		fmt.Fprintln(a.stdout, "No snapshot matches; nothing was forgotten.")
	case answer.Forgotten == 0:
		fmt.Fprintln(a.stdout, "Every snapshot is kept.")
	case dryRun:
		fmt.Fprintf(a.stdout, "Would forget %s. Nothing was changed.\n", count)
	case prune:
		fmt.Fprintf(a.stdout, "Forgot %s.\n", count)
	default:
		fmt.Fprintf(a.stdout, "Forgot %s. To give their space back: gotong prune\n", count)
	}
	return nil
}

func (a *app) printForgottenJSON(answer *controlv1.ForgetResponse, dryRun bool) error {
	type decision struct {
		snapshotJSON
		Forget  bool     `json:"forget"`
		Reasons []string `json:"reasons"`
	}
	type group struct {
		Name      string     `json:"name"`
		Snapshots []decision `json:"snapshots"`
	}
	groups := make([]group, 0, len(answer.Groups))
	for _, g := range answer.Groups {
		out := group{Name: g.Name, Snapshots: []decision{}}
		for _, d := range g.Decisions {
			out.Snapshots = append(out.Snapshots, decision{newSnapshotJSON(d.Snapshot), d.Forget, append([]string{}, d.Reasons...)})
		}
		groups = append(groups, out)
	}
	return a.printJSON(struct {
		Type      string  `json:"type"`
		Groups    []group `json:"groups"`
		Forgotten uint64  `json:"forgotten"`
		DryRun    bool    `json:"dry_run"`
	}{"forget", groups, answer.Forgotten, dryRun})
}
