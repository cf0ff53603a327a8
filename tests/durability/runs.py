"""Small runs that cover each kind of policy; three epochs of three minibatches."""

MLP = ["-a", "mlp_bn_drop", "--limit-train", "96", "--limit-test", "30", "-b", "32", "--lr", "0.02", "--epochs", "3"]
CONV = ["-a", "simplenet_cifar", *MLP[2:]]

RUNS = {
    "agp": (
        MLP,
        """
pruners:
  agp: {class: AutomatedGradualPruner, initial_sparsity: 0.1, final_sparsity: 0.6, weights: [layers.1.weight]}
lr_schedulers:
  lr: {class: StepLR, step_size: 1, gamma: 0.7}
policies:
  - {pruner: {instance_name: agp}, starting_epoch: 0, ending_epoch: 3, frequency: 1}
  - {lr_scheduler: {instance_name: lr}, starting_epoch: 0, ending_epoch: 3, frequency: 1}
""",
    ),
    "sensitivity": (
        [*MLP, "--optimizer", "adamw"],
        """
pruners:
  sense: {class: SensitivityPruner, sensitivities: {layers.1.weight: 0.5, layers.4.weight: 0.3}}
policies:
  - {pruner: {instance_name: sense}, starting_epoch: 0, ending_epoch: 3, frequency: 1}
""",
    ),
    "splicing": (
        MLP,
        """
pruners:
  surgery: {class: SplicingPruner, low_thresh_mult: 0.8, hi_thresh_mult: 1.1, sensitivities: {layers.1.weight: 0.4}}
policies:
  - pruner:
      instance_name: surgery
      args: {mask_on_forward_only: true, keep_mask: true, mini_batch_pruning_frequency: 2}
    starting_epoch: 0
    ending_epoch: 3
    frequency: 1
""",
    ),
    "dense copies": (
        [*MLP, "--optimizer", "adam"],
        """
pruners:
  soft: {class: SparsityLevelParameterPruner, levels: {layers.1.weight: 0.5, layers.8.weight: 0.3}}
policies:
  - pruner:
      instance_name: soft
      args: {mask_on_forward_only: true, use_double_copies: true, mini_batch_pruning_frequency: 2}
    starting_epoch: 0
    ending_epoch: 2
    frequency: 1
""",
    ),
    "rigl": (
        MLP,
        """
pruners:
  rigl: {class: RigLPruner, sparsity: 0.7, weights: [layers.1.weight, layers.4.weight]}
policies:
  - pruner: {instance_name: rigl}
    starting_minibatch: 0
    ending_minibatch: 8
    minibatch_frequency: 2
""",
    ),
    "l0 with a target": (
        [*MLP, "--optimizer", "adam"],
        """
regularizers:
  gates: {class: L0Regularizer, target_sparsity: 0.4, weights: [layers.1.weight, layers.4.weight]}
policies:
  - {regularizer: {instance_name: gates}, starting_epoch: 0, ending_epoch: 3, frequency: 1}
""",
    ),
    "thinning in the middle": (
        CONV,
        """
pruners:
  filters: {class: L1RankedStructureParameterPruner, desired_sparsity: 0.4, group_type: 3D, weights: [conv2.weight]}
regularizers:
  gates: {class: L0Regularizer, target_sparsity: 0.6, weights: [conv1.weight, fc1.weight]}
extensions:
  thinner: {class: StructureRemover}
policies:
  - {pruner: {instance_name: filters}, epochs: [0]}
  - {regularizer: {instance_name: gates}, starting_epoch: 0, ending_epoch: 3, frequency: 1}
  - {extension: {instance_name: thinner}, epochs: [1]}
""",
    ),
    "an average of weights": (
        [*CONV, "--ema", "0.9", "--warmup-epochs", "2", "--label-smoothing", "0.1", "--optimizer", "adamw"],
        """
pruners:
  filters: {class: L1RankedStructureParameterPruner, desired_sparsity: 0.4, group_type: 3D, weights: [conv2.weight]}
  soft: {class: SparsityLevelParameterPruner, levels: {fc2.weight: 0.5}}
extensions:
  thinner: {class: StructureRemover}
policies:
  - {pruner: {instance_name: filters}, epochs: [0]}
  - pruner: {instance_name: soft, args: {mask_on_forward_only: true, use_double_copies: true}}
    starting_epoch: 0
    ending_epoch: 3
    frequency: 1
  - {extension: {instance_name: thinner}, epochs: [1]}
""",
    ),
    "early stopping and trajectory": (
        [*MLP, "--early-stop", "UP:1", "--trajectory", "layers.*.weight:1"],
        """
regularizers:
  lasso: {class: L1Regularizer, reg_regims: {layers.1.weight: 1.0e-3}, threshold_criteria: Max}
lr_schedulers:
  plateau: {class: ReduceLROnPlateau, mode: max, patience: 0}
policies:
  - {regularizer: {instance_name: lasso}, starting_epoch: 0, ending_epoch: 3, frequency: 1}
  - {lr_scheduler: {instance_name: plateau}, starting_epoch: 0, ending_epoch: 3, frequency: 1}
""",
    ),
    "filters by gradient and activation": (
        CONV,
        """
pruners:
  taylor:
    class: GradientRankedFilterPruner_AGP
    initial_sparsity: 0.1
    final_sparsity: 0.5
    group_type: Filters
    weights: [conv2.weight]
  apoz: {class: ActivationAPoZRankedFilterPruner, desired_sparsity: 0.3, group_type: Filters, weights: [conv1.weight]}
lr_schedulers:
  cosine: {class: CosineAnnealingLR, T_max: 9}
policies:
  - pruner: {instance_name: taylor, args: {skip_first_minibatch: true}}
    starting_epoch: 0
    ending_epoch: 3
    frequency: 1
  - {pruner: {instance_name: apoz}, epochs: [1, 2]}
  - {lr_scheduler: {instance_name: cosine}, starting_minibatch: 0, ending_minibatch: 9}
""",
    ),
    "filters by chance": (
        [*CONV, "--optimizer", "rmsprop"],
        """
pruners:
  random: {class: BernoulliFilterPruner_AGP, initial_sparsity: 0, final_sparsity: 0.4, weights: [conv1.weight]}
policies:
  - {pruner: {instance_name: random}, starting_epoch: 0, ending_epoch: 3, frequency: 1}
""",
    ),
}
