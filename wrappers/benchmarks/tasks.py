"""List the tasks of every benchmark suite."""

from __future__ import annotations


def _names(text: str) -> list[str]:
    """Return the words of a text."""
    return text.split()


# 55 games: the tasks of the score file that the DreamerV2 authors released (ALE's 57 without defender and surround).
ATARI_55 = _names(
    "alien amidar assault asterix asteroids atlantis bank_heist battle_zone beam_rider berzerk bowling boxing breakout "
    "centipede chopper_command crazy_climber demon_attack double_dunk enduro fishing_derby freeway frostbite gopher "
    "gravitar hero ice_hockey jamesbond kangaroo krull kung_fu_master montezuma_revenge ms_pacman name_this_game "
    "phoenix pitfall pong private_eye qbert riverraid road_runner robotank seaquest skiing solaris space_invaders "
    "star_gunner tennis time_pilot tutankham up_n_down venture video_pinball wizard_of_wor yars_revenge zaxxon"
)

# 26 games of the Atari 100k benchmark (Kaiser et al. 2019, arXiv 1903.00374, table 5).
ATARI_26 = _names(
    "alien amidar assault asterix bank_heist battle_zone boxing breakout chopper_command crazy_climber demon_attack "
    "freeway frostbite gopher hero jamesbond kangaroo krull kung_fu_master ms_pacman pong private_eye qbert "
    "road_runner seaquest up_n_down"
)

# 18 and 20 tasks (DreamerV3, arXiv 2301.04104v1, table A.1; the proprioceptive set leaves the quadruped out).
DMC_18 = _names(
    "acrobot_swingup ball_in_cup_catch cartpole_balance cartpole_balance_sparse cartpole_swingup "
    "cartpole_swingup_sparse cheetah_run finger_spin finger_turn_easy finger_turn_hard hopper_hop hopper_stand "
    "pendulum_swingup reacher_easy reacher_hard walker_run walker_stand walker_walk"
)
DMC_20 = sorted([*DMC_18, "quadruped_run", "quadruped_walk"])

# Action repeats of PlaNet (arXiv 1811.04551; planet/scripts/tasks.py of the released code).
PLANET_REPEATS = {
    "cartpole_balance": 8,
    "cartpole_swingup": 8,
    "reacher_easy": 4,
    "cheetah_run": 4,
    "finger_spin": 2,
    "cup_catch": 4,
    "walker_walk": 2,
}

CRAFTER = ["reward", "noreward"]

# 23 experiments (Osband et al. 2019, arXiv 1908.03568), each with numbered settings: "cartpole/0".
BSUITE_23 = _names(
    "bandit bandit_noise bandit_scale cartpole cartpole_noise cartpole_scale cartpole_swingup catch catch_noise "
    "catch_scale deep_sea deep_sea_stochastic discounting_chain memory_len memory_size mnist mnist_noise mnist_scale "
    "mountain_car mountain_car_noise mountain_car_scale umbrella_distract umbrella_length"
)

# The DMLab-30 levels (Beattie et al. 2016, arXiv 1612.03801); the papers train on a part of them.
DMLAB_30 = _names(
    "explore_goal_locations_large explore_goal_locations_small explore_object_locations_large "
    "explore_object_locations_small explore_object_rewards_few explore_object_rewards_many "
    "explore_obstructed_goals_large explore_obstructed_goals_small "
    "language_answer_quantitative_question language_execute_random_task "
    "language_select_described_object language_select_located_object lasertag_one_opponent_large "
    "lasertag_one_opponent_small lasertag_three_opponents_large lasertag_three_opponents_small natlab_fixed_large_map "
    "natlab_varying_map_randomized natlab_varying_map_regrowth psychlab_arbitrary_visuomotor_mapping "
    "psychlab_continuous_recognition psychlab_sequential_comparison psychlab_visual_search "
    "rooms_collect_good_objects_train rooms_exploit_deferred_effects_train rooms_keys_doors_puzzle "
    "rooms_select_nonmatching_object rooms_watermaze skymaze_irreversible_path_hard skymaze_irreversible_path_varied"
)

MINECRAFT = ["diamond", "wood", "climb"]
