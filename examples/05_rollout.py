"""Stage 5, policy and simulator -> success rates. The policy sees camera image and instruction; the robot's state where it learned with it.

python examples/05_rollout.py --policy outputs/policy --tasks drawer-open-v3
"""

import argparse
from functools import partial

from cyclemimic.evaluation.environments.metaworld import CONTROL_RATE_HZ, MAX_STEPS, MetaworldEnvironment


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--policy", default="outputs/policy")
    parser.add_argument("--tasks", nargs="+", default=["button-press-topdown-v3", "drawer-open-v3", "window-open-v3"])
    parser.add_argument("--episodes", type=int, default=5, help="trials of each task")
    parser.add_argument("--first_state", type=int, default=500_000, help="first variation of the scene")
    parser.add_argument(
        "--action_repeat", type=int, help="control steps an action lasts (default: as it did in the data)"
    )
    arguments = parser.parse_args()

    # Here, because the simulator's processes import this file again, and need none of it.
    from cyclemimic import CycleMimicForActionPrediction, CycleMimicProcessor
    from cyclemimic.checkpoints import choose_device
    from cyclemimic.evaluation.intervals import success_rates
    from cyclemimic.evaluation.policy import ChunkPolicy
    from cyclemimic.evaluation.rollout import Trial, run_rollouts

    processor = CycleMimicProcessor.from_pretrained(arguments.policy)
    model = CycleMimicForActionPrediction.from_pretrained(arguments.policy).to(choose_device(None))
    policy = ChunkPolicy(model, processor)
    config = model.config
    fps = processor.action_statistics[processor.resolve_dataset()].get("fps", CONTROL_RATE_HZ)
    action_repeat = arguments.action_repeat or max(1, round(CONTROL_RATE_HZ / fps))
    trials = [
        Trial(task, arguments.first_state + index) for task in arguments.tasks for index in range(arguments.episodes)
    ]
    results = run_rollouts(
        policy,
        trials,
        partial(MetaworldEnvironment, action_repeat=action_repeat),
        max_steps=max(1, MAX_STEPS // action_repeat),
        num_action_steps=config.num_executed_steps,
        use_robot_state=config.state_dim is not None,
        temporal_ensemble_coeff=config.temporal_ensemble_coeff,
    )
    for task, rate in success_rates(results).items():
        print(
            f"{task}: {rate['successes']} of {rate['trials']}, 95 % interval {rate['low']:.2f} to {rate['high']:.2f}"
        )


if __name__ == "__main__":
    main()
