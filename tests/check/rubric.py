"""The 28 tests of The ML Test Score, and what does each of them here. `tests.check.ml_test_score` scores and checks it.

A row claims only what it names. Raising one is naming what does it now and taking its `lacking` away.
"""

from __future__ import annotations

from dataclasses import dataclass

PAPER = (
    "Breck, Cai, Nielsen, Salib and Sculley, "
    "[The ML Test Score](https://research.google.com/pubs/archive/46555.pdf), IEEE Big Data 2017"
)


@dataclass(frozen=True, slots=True)
class Row:
    """One test of the rubric."""

    name: str
    how: str = ""
    """What Mixer does about it."""
    tests: tuple[str, ...] = ()
    """`file::function` below tests/: what proves it at every change."""
    commands: tuple[str, ...] = ()
    """Of `mixer` or `make`, with its options."""
    watched: tuple[str, ...] = ()
    """Metrics of the catalogue and alerts of `mixer rules`."""
    lacking: str = ""
    """What is not done of it, or done by hand only."""

    @property
    def score(self) -> float:
        """0 where nothing is done, 1/2 where something is lacking or done by hand, 1 where it is done by itself."""
        if not (self.tests or self.commands or self.watched):
            return 0.0
        return 0.5 if self.lacking else 1.0


DATA = (
    Row(
        "What a feature may be is declared",
        "A mix declares every feature with its type, range and default; training adds a profile of its values.",
        tests=(
            "mixer/test_schema.py::test_what_makes_no_sense_is_refused",
            "mixer/test_features.py::test_out_of_range_is_counted_and_treated_as_missing",
            "models/test_training.py::test_profiles_are_of_the_training_rows",
        ),
        commands=("mixer check-config", "mixer schema"),
        watched=("mixer_feature_out_of_range_total", "MixerFeatureOutOfRange"),
    ),
    Row(
        "Every feature is worth having",
        "Each model's manifest and card tell every feature's share of the gain; the card of the demo's model is kept.",
        tests=("models/test_training.py::test_importance_is_shares_of_the_gain",),
        commands=("mixer train",),
        lacking="Nothing leaves a feature out and measures what is lost; some of the demo's have no gain and stay.",
    ),
    Row(
        "No feature costs too much",
        "The stage that makes features has a duration of its own; CI holds the whole path's processor time to bounds.",
        tests=("bench/test_lines.py::test_a_ratio_beyond_its_wide_bound_fails",),
        commands=("make bench-check",),
        watched=("mixer_stage_duration_seconds", "MixerAddsLatency"),
        lacking="The cost is known by stage, not by feature, and is held against no gain.",
    ),
    Row(
        "Features keep to rules that stand above them",
        "Features come from a closed list of sources, a model may read none that its mix does not declare, and the "
        "movie set's may not read what comes from labels.",
        tests=(
            "mixer/test_model.py::test_a_mix_that_declares_other_features_is_refused",
            "mixer/test_settings.py::test_every_fault_is_listed_at_once_with_its_place",
            "eval/test_msrd.py::test_no_feature_is_made_from_labels",
        ),
        commands=("mixer check-config",),
        lacking="There is no list of fields that features must not read: what a mix declares is allowed.",
    ),
    Row(
        "Users' data is guarded",
        "Queries are hashed under a key unless settings say otherwise; spans and log lines hold no filter, context or "
        "secret.",
        tests=(
            "mixer/test_telemetry.py::test_query_as_it_is_set",
            "mixer/test_telemetry.py::test_facts_of_the_user_stay",
            "mixer/test_telemetry.py::test_secrets_stay",
            "mixer/test_logged.py::test_a_query_is_kept_as_it_may_be",
        ),
        lacking="Nothing deletes a user's rows from the feature log, which keeps what callers send as context; judged "
        "queries lie in clear text beside a model.",
    ),
    Row(
        "A new feature is soon there",
        "A feature is an entry of the settings, read alike by training and serving; "
        "[README](../README.md#add-a-feature) tells how.",
        tests=(
            "mixer/test_cli.py::test_train_says_what_it_made",
            "mixer/test_cli.py::test_a_trained_model_serves",
        ),
        commands=("mixer train", "mixer serve"),
        lacking="How long it takes from the idea to serving is not measured.",
    ),
    Row(
        "The code of every feature is tested",
        "Each source of features has its tests, down to missing values and numbers that a float32 cannot hold.",
        tests=(
            "mixer/test_features.py::test_backend_features",
            "mixer/test_features.py::test_mix_features",
            "mixer/test_features.py::test_number_features",
            "mixer/test_features.py::test_numbers_in_the_query",
            "mixer/test_features.py::test_query_features",
            "mixer/test_features.py::test_text_features",
            "mixer/test_features.py::test_likeness_to_the_first",
            "mixer/test_features.py::test_context_numbers",
            "mixer/test_features.py::test_context_levels",
        ),
    ),
)

MODEL = (
    Row(
        "A model's recipe is kept and reviewed",
        "A manifest keeps parameters, data, code and libraries by hash and version; the demo's model is that of the "
        "recipe and the judgements in the repository.",
        tests=(
            "models/test_training.py::test_the_manifest_says_what_it_was_made_from",
            "mixer/demo/test_experiment.py::test_the_shipped_model_is_of_the_recipe",
        ),
        commands=("mixer models show", "mixer models diff"),
        lacking="That a second person read a recipe is left to the rules of the repository that holds it.",
    ),
    Row(
        "What is better offline is better online",
        "Clicks and judgements are measured by the same code (`mixer online`, `mixer evaluate`).",
        lacking="Nobody has yet held the two against each other over several models.",
    ),
    Row(
        "Hyperparameters are tuned",
        "The number of trees is chosen by the validation queries at every training; `make eval-msrd` searches the "
        "weights of the backends and prints what it chose.",
        tests=("models/test_training.py::test_patience_ends_the_training",),
        commands=("mixer train", "make eval-msrd"),
        lacking="Learning rate, leaves and the rest of a recipe are set by hand.",
    ),
    Row(
        "What a model loses with age is known",
        "Models are trained on windows further and further back and measured on the newest queries; a greatest age "
        "follows.",
        tests=(
            "models/test_decay.py::test_what_was_true_once_is_found_to_be_worn",
            "models/test_decay.py::test_a_steady_world_wears_nothing",
            "mixer/test_cli.py::test_decay_shows_ndcg_by_age",
        ),
        commands=("mixer models decay",),
    ),
    Row(
        "Something simpler is not as good",
        "Every evaluation holds the model against each backend alone and the fused order; the gate refuses a version "
        "that does not beat the fused order.",
        tests=(
            "models/test_evaluation.py::test_every_ranking_is_there",
            "models/test_gate.py::test_every_bound_can_refuse_and_be_switched_off",
            "mixer/test_cli.py::test_evaluate_asks_a_running_mixer",
        ),
        commands=("mixer evaluate", "mixer models promote"),
    ),
    Row(
        "It is good enough on the parts that matter",
        "Declared slices are measured apart offline and watched apart online; the gate refuses a version that falls "
        "for the queries of one slice or one pool.",
        tests=(
            "models/test_gate.py::test_a_drop_in_one_slice_is_not_hidden_by_the_mean",
            "models/test_gate.py::test_a_query_is_in_the_slices_of_its_mix_and_of_its_pool",
            "models/test_slicing.py::test_a_slice_is_measured_by_its_own_queries",
            "mixer/test_slice_counts.py::test_answers_are_counted_by_slice",
            "integration/test_alerts.py::test_what_goes_wrong_raises_its_alerts",
            "models/test_online.py::test_slices",
        ),
        commands=("mixer evaluate", "mixer models promote", "mixer online --by"),
        watched=("mixer_slice_score_bin_total", "MixerSliceDrift", "MixerSliceDegraded", "MixerSliceSlow"),
    ),
    Row(
        "It is fair to those it serves",
        "Slices by script or by what a caller sends can be declared, and are then watched and measured apart.",
        lacking="No judged set here tells groups of people or languages apart, so nothing was measured.",
    ),
)

INFRASTRUCTURE = (
    Row(
        "Training gives the same model again",
        "The same listings and recipe give the same file, to the bit; the seed is part of the recipe.",
        tests=(
            "models/test_training.py::test_the_same_recipe_makes_the_same_file",
            "models/test_training.py::test_the_seed_is_part_of_the_recipe",
            "models/test_listings.py::test_the_same_listings_make_the_same_file",
        ),
        commands=("mixer train",),
    ),
    Row(
        "The code that specifies models is tested",
        "Recipes refuse what they do not know, learn what there is to learn, stop when they should.",
        tests=(
            "models/test_training.py::test_a_recipe_has_no_unknown_part",
            "models/test_training.py::test_it_learns",
            "models/test_training.py::test_listings_without_contrast_teach_nothing",
            "mixer/test_forest.py::test_scores_are_those_of_lightgbm_to_the_last_bit",
        ),
    ),
    Row(
        "The whole way is tested as one",
        "Index, serve, train through the running service, serve what was trained, measure it, publish and promote it.",
        tests=(
            "mixer/demo/test_show.py::test_the_demo_from_start_to_end",
            "mixer/test_cli.py::test_a_trained_model_serves",
            "mixer/test_cli.py::test_evaluate_starts_a_mixer",
            "models/test_gate.py::test_the_gate_takes_what_training_keeps",
            "mixer/test_cli_models.py::test_promote_and_roll_back",
        ),
        commands=("mixer demo --once",),
    ),
    Row(
        "A model is judged before it serves",
        "No version becomes current before the gate has held it against its bounds and against what is current; each "
        "server then checks what it loads.",
        tests=(
            "models/test_gate.py::test_columns_permuted_in_training",
            "models/test_gate.py::test_a_unit_bug_in_training",
            "models/test_gate.py::test_a_truncated_file_that_was_sealed",
            "models/test_promotion.py::test_what_is_refused_does_not",
            "mixer/test_faults_over_sockets.py::test_spoiled_model_is_not_ready",
        ),
        commands=("mixer models promote",),
        watched=("mixer_model_refused_total", "MixerModelRefused"),
    ),
    Row(
        "One answer can be taken apart",
        "A search tells each backend's part, every feature and what moved each hit; its trace tells the same.",
        tests=(
            "models/test_replay.py::test_the_logged_model_gives_the_same_bits",
            "models/test_explained.py::test_the_log_says_what_the_server_says",
            "mixer/test_server.py::test_features_on_demand",
            "mixer/test_telemetry.py::test_rank_span_tells_the_ranking",
        ),
        commands=("mixer explain", "mixer replay", "mixer diff"),
    ),
    Row(
        "A model is tried on a few before it serves all",
        "Shadows score beside what serves; a canary gets a share of the people, is held against the control by errors, "
        "fallbacks, latency, scores and clicks, and takes itself back; two models' lists can be drafted in turns.",
        tests=(
            "mixer/test_experiment.py::test_a_canary_past_a_bound_is_taken_back",
            "mixer/test_experiment.py::test_a_sound_canary_stays",
            "mixer/test_shadow.py::test_answers_are_the_same_bytes_with_shadows_and_without",
        ),
        commands=("mixer experiment check",),
        watched=("mixer_canary_rollbacks_total", "mixer_shadow_overlap_ratio"),
    ),
    Row(
        "A model can be taken back",
        "One command makes the version before current again; servers follow under load without a failed call.",
        tests=(
            "mixer/test_registry.py::test_rollback_walks_back",
            "mixer/test_cli_models.py::test_promote_and_roll_back",
            "mixer/test_rollout.py::test_swaps_under_load",
            "mixer/test_rollout.py::test_the_model_before_comes_back_from_memory",
        ),
        commands=("mixer models rollback",),
        watched=("mixer_model_swaps_total",),
    ),
)

MONITORING = (
    Row(
        "A change of what Mixer rests on is told",
        "A backend whose index, schema or software becomes another is an event, a count and an alert; libraries are "
        "locked by hash.",
        tests=(
            "mixer/test_origins.py::test_a_change_is_a_count_and_a_log_event",
            "mixer/test_faults_over_sockets.py::test_backend_that_becomes_another",
            "integration/test_alerts.py::test_what_goes_wrong_raises_its_alerts",
        ),
        commands=("mixer rules",),
        watched=("mixer_backend_changes_total", "MixerBackendChanged", "MixerBackendStale"),
    ),
    Row(
        "What must hold of the data is watched",
        "Values missing, out of range or in another bin than in training are counted by feature; senseless answers of "
        "a backend are errors by name.",
        tests=(
            "mixer/test_garbage_over_sockets.py::test_what_makes_no_sense_is_counted_by_feature",
            "mixer/test_garbage_over_sockets.py::test_what_makes_no_sense_moves_nobody_else",
            "mixer/test_faults_over_sockets.py::test_backend_that_answers_garbage",
            "integration/test_alerts.py::test_what_goes_wrong_raises_its_alerts",
        ),
        commands=("mixer rules",),
        watched=(
            "mixer_feature_missing_total",
            "mixer_dropped_total",
            "MixerFeatureMissing",
            "MixerFeatureOutOfRange",
            "MixerFeatureDrift",
        ),
    ),
    Row(
        "Training and serving compute the same",
        "One code makes features for both; served vectors are logged and made again, to the bit; live values are "
        "counted by the bins of the training.",
        tests=(
            "models/test_skew.py::test_what_was_served_is_made_again_to_the_bit",
            "models/test_skew.py::test_a_unit_bug_is_caught_and_named",
            "mixer/test_profiles.py::test_what_is_served_is_counted_beside_what_was_trained_on",
        ),
        commands=("mixer models skew",),
        watched=("mixer_feature_bin_total", "MixerFeatureDrift"),
    ),
    Row(
        "No model is too old",
        "Its age is a metric, and too great an age an alert.",
        tests=(
            "mixer/test_observe.py::test_the_model_that_ranks_is_a_metric",
            "integration/test_rules.py::test_every_alert_is_tested",
        ),
        commands=("mixer rules --bounds",),
        watched=("mixer_model_age_seconds", "MixerModelOld", "MixerModelsDiffer"),
    ),
    Row(
        "Numbers stay numbers",
        "Scores that are not finite are counted and sink; without a finite one the fused order stands and says so; the "
        "gate refuses a version that makes any.",
        tests=(
            "mixer/test_rank.py::test_scores_without_a_finite_one_are_no_order",
            "mixer/test_merge.py::test_a_score_that_is_not_finite_is_missing_and_counted",
            "models/test_gate.py::test_scores_that_are_nan_for_some_rows",
        ),
        commands=("mixer models promote",),
        watched=("mixer_fallbacks_total", "MixerFallsBack"),
    ),
    Row(
        "It has not become slower",
        "CI holds processor time to bounds beside a bare fan-out; the gate holds a model's time; what Mixer adds to an "
        "answer is a metric with an alert.",
        tests=(
            "bench/test_lines.py::test_every_target_is_judged",
            "bench/test_lines.py::test_a_ratio_beyond_its_wide_bound_fails",
            "integration/test_rules.py::test_every_alert_is_tested",
        ),
        commands=("make bench-check", "make bench-compare", "mixer models promote"),
        watched=("mixer_added_latency_seconds", "MixerAddsLatency", "MixerSliceSlow"),
        lacking="Memory and the time of training are not held to a bound.",
    ),
    Row(
        "It has not become worse",
        "Scores that drift from those of the training raise an alert by mix and slice; clicks give CTR, MRR and NDCG.",
        tests=(
            "mixer/test_stability.py::test_psi_by_hand",
            "mixer/test_observe.py::test_scores_and_features_are_counted_by_the_model_s_own_bins",
            "models/test_online.py::test_measures_by_hand",
        ),
        commands=("mixer online", "mixer rules"),
        watched=("mixer_score_bin_total", "MixerScoreDrift", "MixerSliceDrift"),
        lacking="Clicks are measured when somebody asks: no metric or alert tells of them.",
    ),
)

SECTIONS = {"Data": DATA, "Model": MODEL, "Infrastructure": INFRASTRUCTURE, "Monitoring": MONITORING}
